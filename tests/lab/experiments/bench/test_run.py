"""Real runs of `lab bench` on processes: Ctrl-C keeps the measurements, --resume continues, nothing is left behind."""

import csv
import io
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.store import Run
from lab.load.cores import Pinning, pin_servers
from lab.servers.open import open_backend
from lab.servers.runtime import runtime_directory
from tests.support.suite import MODEL_TESTS_ONLY


@pytest.mark.timeout(300)
def test_ctrl_c_keeps_the_measurements_and_resume_continues(
    process_project: str, lab, run_here: Callable[..., int], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ["--backend", "process", "--project", process_project, "bench", "--out", str(tmp_path)]
    small = ["--quick", "asyncio_streams", "--rounds", "1", "--duration", "800ms", "--seed", "1"]
    command = [sys.executable, "-m", "lab", *where, *small]
    environ = os.environ | MODEL_TESTS_ONLY
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("1 of "):  # a busy machine may measure fewer levels
                process.send_signal(signal.SIGINT)
                break
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(said) + stderr
    assert "This run was interrupted" in stdout
    run = Run.find(None, "bench", root=tmp_path)
    kept = run.steps()
    assert not run.is_finished
    assert "conformance/asyncio_streams" in kept
    assert any("measurement" in record for record in kept.values())

    done = lab(*where, "--resume", "latest")
    # On a busy machine, the generator may have had no core for a while.
    assert done.returncode == int(": disturbed: " in done.stderr), done.stdout + done.stderr
    assert run.is_finished
    after = run.steps()
    assert {key: after[key] for key in kept} == kept
    assert "conformance:" not in done.stderr
    # One of each kind, for the server and its control.
    names = [
        "asyncio_streams-2.log",
        "asyncio_streams.log",
        "control-asyncio_streams-2.log",
        "control-asyncio_streams.log",
    ]
    assert sorted(path.name for path in (run.folder / "logs").iterdir()) == names

    assert run_here(*where, "--show", "latest") == 0
    assert "asyncio_streams" in capfd.readouterr().out
    assert run_here(*where, "--show", run.started, "--export", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [row["model"] for row in rows] == ["asyncio_streams", "control-asyncio_streams"]
    run_here(*where, "--resume", "latest")
    assert "is finished" in capfd.readouterr().err
    facts = json.loads((run.folder / "run.json").read_text())
    assert {"processor", "system", "servers", "commit", "governor", "libc", "allocator"} <= set(facts["environment"])
    assert facts["environment"]["libc"] == " ".join(platform.libc_ver())
    assert facts["models"]["asyncio_streams"]["concurrency"] == "loop"
    if len(os.sched_getaffinity(0)) > 1:
        assert facts["environment"]["cores"].startswith("servers on core")
    assert not runtime_directory(f"{process_project}-control").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workloads", "pong"], "unknown workloads: pong; known: session"),
        (["pong"], "unknown model 'pong'"),
        (["--export", "csv"], "--export goes with --show"),
        (["--show", "then"], "no run 'then'"),
        (["--resume", "latest"], "nothing has been measured yet"),
    ],
)
def test_invalid_option_is_an_error_in_one_line(
    run_here: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    assert run_here("--backend", "process", "bench", "--out", str(tmp_path), *arguments) == 2
    said = capfd.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.docker
def test_containers_stay_on_their_cores(docker_project: str, engine: docker.DockerClient) -> None:
    backend = open_backend("docker", docker_project)
    core = max(os.sched_getaffinity(0))
    try:
        backend.up(["plain_socket"])
        pin_servers(backend, ["plain_socket"], Pinning(servers=(core,), generator=(0,)))
        container = engine.containers.get(f"{docker_project}-plain_socket-1")
        assert container.attrs["HostConfig"]["CpusetCpus"] == str(core)
        with pytest.raises(LabError, match="cannot be pinned to core 1000"):
            pin_servers(backend, ["plain_socket"], Pinning(servers=(1000,), generator=(0,)))
    finally:
        backend.down()
