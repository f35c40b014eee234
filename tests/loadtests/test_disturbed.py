"""A disturbed measurement is reported as such, and leaves no process behind."""

import ast
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.load.measure import measure
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from lab.metrics.socket_owner import count_connections
from lab.metrics.verdict import Limit, exit_code
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address, Transport
from tests.support.processes import find_descendants
from tests.support.waiting import wait_until

MODEL = "asyncio_streams"
CATALOGUE = Catalogue.load()
USERS = 4
# Of each process of a generator.
LOCUSTFILE = "loadtests/locustfile.py"


def find_address(backend: Processes) -> Address:
    found = (item for item in backend.targets() if (item.service, item.transport) == ("command", "tcp"))
    return Address.parse(next(found).address)


def is_loaded(backend: Processes) -> bool:
    return count_connections([find_address(backend)]) == USERS


@contextmanager
def loaded(
    backend: Processes, *, seconds: float, workers: int = 0, preset: str = "closed_sleep_20ms"
) -> Iterator[Future[Measurement]]:
    """Run a measurement; enter the block when all its users are connected."""
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(
            measure,
            backend,
            CATALOGUE[MODEL],
            find_preset(preset).change(users=USERS, duration=seconds, warm_up=0.1),
            workers=workers,
        )
        wait_until(lambda: found.done() or is_loaded(backend))
        assert not found.done(), found.result()
        yield found


def test_lost_worker_is_in_the_row(backend):
    with loaded(backend, seconds=8.0, workers=2) as running:
        find_descendants(psutil.Process(), "--worker")[0].kill()
        found = running.result()
    assert found.verdict.bound is Limit.DISTURBED
    assert "1 of 2 load generators did not take part in the whole window" in found.load.disturbances
    assert exit_code([found.verdict]) == 2


def test_loss_of_the_only_worker_is_an_error(backend):
    with loaded(backend, seconds=30.0, workers=1) as running:
        find_descendants(psutil.Process(), "--worker")[0].kill()
        reason = r"exit code 1\); .*no counts: 1 of 1 load generators did not take part in the whole window"
        with pytest.raises(LabError, match=reason):
            running.result()


def test_lost_master_is_an_error(backend):
    with loaded(backend, seconds=30.0, workers=1) as running:
        find_descendants(psutil.Process(), "--master")[0].kill()
        with pytest.raises(LabError, match=r"no result for asyncio_streams \(exit code -9\)"):
            running.result()


# A worker may miss more heartbeats than Locust's 3, which come once a second.
@pytest.mark.parametrize(("workers", "stopped"), [(0, 1.0), (1, 6.0)], ids=["alone", "worker"])
def test_stopped_generator_is_in_the_row(backend, workers, stopped):
    server = psutil.Process(backend.pid(MODEL))
    with loaded(backend, seconds=10.0, workers=workers) as running:
        (generator,) = find_descendants(psutil.Process(), "--worker" if workers else LOCUSTFILE)
        # Each user gets 50 replies a second at most, and the server wakes up three times at most for each: after 300
        # times, half a second has passed, and the warm-up of 0.1 s is over.
        before = server.num_ctx_switches().voluntary
        wait_until(lambda: running.done() or server.num_ctx_switches().voluntary >= before + 300)
        generator.suspend()
        try:
            wait_until(lambda: generator.status() == psutil.STATUS_STOPPED)
            # What is to be noticed: a generator that was away for so long.
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + stopped)
        finally:
            generator.resume()
        found = running.result()
    assert found.verdict.bound is Limit.DISTURBED
    assert "a load generator did not run for" in found.verdict.reason


def test_another_load_on_the_server_is_in_the_row(backend, generator):
    address = find_address(backend)
    with socket.create_connection((address.host, address.port)):
        found = measure(
            backend,
            CATALOGUE[MODEL],
            find_preset("closed_ping").change(users=1, duration=0.6, warm_up=0.0),
            generator=generator,
        )
    assert found.verdict.bound is Limit.DISTURBED
    assert "the server had 1 connections of other clients" in found.verdict.reason


@pytest.mark.parametrize("how", ["workers", "target"])
def test_generators_end_with_a_killed_lab(backend, how, tmp_path):
    address = find_address(backend)
    which = ["--target", f"command={address}"] if how == "target" else [MODEL]
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", backend.project, "load"]
    command += [*which, "--preset", "closed_sleep_20ms", "--headless", "--duration", "10m", "--users", str(USERS)]
    command += ["--workers", "2"] if how == "workers" else []
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    lab = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    generators = []
    try:
        wait_until(lambda: lab.poll() is not None or is_loaded(backend))
        generators = find_descendants(psutil.Process(lab.pid), LOCUSTFILE)
        assert len(generators) == (3 if how == "workers" else 1)
        os.kill(lab.pid, signal.SIGKILL)
        lab.wait()
        assert psutil.wait_procs(generators, timeout=30)[1] == []
    finally:
        for generator in generators:
            if generator.is_running():
                generator.kill()
        lab.kill()
        lab.wait()
    wait_until(lambda: count_connections([address]) == 0)
    assert list(tmp_path.iterdir()) == []


def test_down_finds_a_leftover_generator(tmp_path):
    """A stopped process, which does not notice that its lab was killed."""
    backend = Processes(f"t{os.getpid()}-left", CATALOGUE)
    try:
        backend.up([MODEL], timeout=60)
        command = [sys.executable, "-m", "lab", "--backend", "process", "--project", backend.project, "load"]
        command += ["--preset", "closed_sleep_20ms", "--headless", "--duration", "10m", "--users", str(USERS)]
        lab = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: lab.poll() is not None or is_loaded(backend))
        (generator,) = find_descendants(psutil.Process(lab.pid), LOCUSTFILE)
        generator.suspend()
        lab.kill()
        lab.wait()
        assert generator.is_running()
    finally:
        backend.down()
    assert psutil.wait_procs([generator], timeout=30)[1] == []


def test_durations_use_a_monotonic_clock():
    """The wall clock is only for people, certificates and Locust's table of seconds."""
    dates = {
        "lab/servers/ca.py",  # of a certificate
        "lab/servers/certificates.py",
        "lab/experiments/bench/runner.py",  # when a step was made
        "lab/experiments/environment.py",
        "lab/experiments/faults/fault.py",
        "lab/load/telemetry.py",
        "lab/experiments/store.py",
        "lab/experiments/xray/record.py",
        "lab/cli/commands/xray.py",
        "lab/tour/exhibits/xmlrpclib_exhibit.py",
        "loadtests/sockets/locust_stats.py",
        "loadtests/web/tables.py",  # the duration of a fault, whose begin is a time of day
    }
    found = set()
    for folder in ("lab", "loadtests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="time" | "localtime" | "gmtime")):
                        found.add(str(path.relative_to(ROOT)))
                    case ast.Call(func=ast.Attribute(attr="now" | "utcnow" | "today")):
                        found.add(str(path.relative_to(ROOT)))
                    case ast.ImportFrom(module="time", names=names) if "time" in [item.name for item in names]:
                        found.add(str(path.relative_to(ROOT)))
    assert found <= dates, "use time.monotonic()"


@pytest.mark.parametrize("transport", ["unix", "udp"])
def test_client_of_another_transport_is_in_the_row(backend, generator, transport):
    (item,) = (each for each in backend.targets() if (each.service, each.transport) == ("command", transport))
    with BlockingConnection(Address.parse(item.address)):
        found = measure(
            backend,
            CATALOGUE[MODEL],
            find_preset("closed_ping").change(users=1, duration=0.6, warm_up=0.0, transport=Transport(transport)),
            generator=generator,
        )
    assert "the server had 1 connections of other clients before or after the load" in found.load.disturbances
    # The load's own users are not counted as other clients.
    found = measure(
        backend,
        CATALOGUE[MODEL],
        find_preset("closed_ping").change(users=2, duration=0.6, warm_up=0.0, transport=Transport(transport)),
        generator=generator,
    )
    assert not [each for each in found.load.disturbances if "other clients" in each]
