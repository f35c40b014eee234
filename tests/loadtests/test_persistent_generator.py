"""The persistent generator with the process backend: consecutive loads, and failed ones."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from lab.base.errors import LabError
from lab.load.generator import PersistentGenerator
from lab.load.measure import MeteredServers, measure
from lab.load.measurement import encode_targets
from lab.load.presets import find_preset
from lab.load.workloads import IDLE_CONNECTIONS
from lab.servers.catalogue import Catalogue
from tests.support.waiting import wait_until

MODEL = "asyncio_streams"
CATALOGUE = Catalogue.load()
WINDOW = ["--headless", "--users", "2", "--spawn-rate", "2", "--models", MODEL, "--window", "0.2", "--warm-up", "0"]


@pytest.fixture
def environ(backend):
    return {"LAB_TARGETS": encode_targets(backend.targets())}


def _process(generator: PersistentGenerator) -> psutil.Process:
    assert generator._helper is not None
    found = psutil.Process(generator._helper.process.pid)
    assert "loadtests.fork_server" in found.cmdline()
    return found


def test_each_load_has_its_own_process_of_one_generator(backend, generator):
    for users in (3, 1):
        found = measure(
            backend,
            CATALOGUE[MODEL],
            find_preset("closed_ping").change(users=users, duration=0.6, warm_up=0.1),
            generator=generator,
        )
        # On a busy machine, one may be late. There are never more: the window begins and ends with the counts.
        assert users - 1 <= found.load.users <= users + 1e-6
        assert found.answered > 0
        assert found.load.failures == {}
        process = _process(generator)
    assert _process(generator) == process
    assert process.children() == []


def test_server_is_looked_up_once_and_again_after_a_restart(backend, generator, monkeypatch):
    asked = []
    targets = backend.targets

    def look_up():
        asked.append(1)
        return targets()

    monkeypatch.setattr(backend, "targets", look_up)
    servers = MeteredServers(backend)

    def load():
        return measure(
            backend,
            CATALOGUE[MODEL],
            find_preset("closed_ping").change(users=1, duration=0.6, warm_up=0.0),
            generator=generator,
            servers=servers,
        )

    # Its memory, not its CPU: in a short window the kernel may not have counted a single tick.
    assert load().server.memory_bytes
    assert load().server.memory_bytes
    assert len(asked) == 1
    # At another address, so that the old address would be refused.
    backend.restart(MODEL)
    found = load()
    assert found.server.memory_bytes
    assert found.load.failures == {}
    assert len(asked) == 2
    backend.stop(MODEL)
    try:
        with pytest.raises(LabError, match=f"{MODEL} is not running"):
            load()
    finally:
        backend.restart(MODEL)


def test_generator_is_ended_with_the_block(backend, environ):
    with PersistentGenerator(backend.helpers) as generator:
        generator.run(WINDOW, environ=environ, timeout=60)
        process = _process(generator)
    assert not process.is_running()


def test_load_with_bad_options_reports_its_error_and_the_next_load_runs(generator, environ):
    done = generator.run(["--no-such-option"], environ=environ, timeout=60)
    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-option" in done.stdout
    done = generator.run([*WINDOW, "--rate", "-1", "--loop", "open"], environ=environ, timeout=60)
    assert done.returncode == 1
    assert "have to be above 0" in done.stdout
    assert "LOAD-RESULT" in generator.run(WINDOW, environ=environ, timeout=60).stdout


def test_clock_of_a_load_starts_with_it(generator, tmp_path):
    """Timers count from the clock of gevent's loop: with that of the generator's start, they would end early."""
    file = tmp_path / "locustfile.py"
    file.write_text("import gevent, sys; sys.exit(f'NOW {gevent.get_hub().loop.now()}')")
    for _ in range(2):  # the first load may have come with the generator
        asked = time.time()
        done = generator.run(["-f", str(file), "--headless"], environ={}, timeout=60)
        assert float(done.stdout.partition("NOW ")[2].split()[0]) >= asked


def test_load_that_times_out_is_ended_and_the_next_load_runs(generator, environ):
    generator.run(WINDOW, environ=environ, timeout=60)
    process = _process(generator)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(generator.run, [*WINDOW, "--window", "600"], environ=environ, timeout=5)
        loads = wait_until(lambda: running.done() or process.children())
        assert not running.done()
        assert isinstance(loads, list)
        with pytest.raises(LabError, match="the load generator sent no LoadEnded within 5 s"):
            running.result()
    assert psutil.wait_procs([process, *loads], timeout=10)[1] == []
    assert "LOAD-RESULT" in generator.run(WINDOW, environ=environ, timeout=60).stdout


def test_killed_generator_is_reported_and_the_next_load_starts_another(generator, environ):
    generator.run(WINDOW, environ=environ, timeout=60)
    os.kill(_process(generator).pid, signal.SIGKILL)
    with pytest.raises(LabError, match="the load generator ended with exit code -9"):
        generator.run(WINDOW, environ=environ, timeout=60)
    assert "LOAD-RESULT" in generator.run(WINDOW, environ=environ, timeout=60).stdout


def test_idle_connections_stay_open_during_a_load(backend, generator):
    found = measure(
        backend,
        CATALOGUE[MODEL],
        find_preset("closed_idle_connections").change(users=2, duration=0.6, warm_up=0.1),
        generator=generator,
    )
    assert found.answered > 0
    assert found.load.failures == {}
    # Descriptors of the server, seen in the middle of it.
    assert found.server.descriptors is not None
    assert found.server.descriptors > IDLE_CONNECTIONS


def test_idle_connections_that_are_refused_stop_the_test(backend, generator, environ):
    refusing = {"LAB_TARGETS": encode_targets(list(_nowhere(backend)))}
    done = generator.run([*WINDOW, "--workload", "idle_connections"], environ=refusing, timeout=60)
    assert f"{MODEL} accepted 0 of {IDLE_CONNECTIONS} idle connections" in done.stdout
    assert "LOAD-RESULT" not in done.stdout


def _nowhere(backend):
    for item in backend.targets():
        yield replace(item, address="tcp://127.0.0.1:1") if item.transport == "tcp" else item
