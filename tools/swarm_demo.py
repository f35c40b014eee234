"""`make swarm-demo`: deploy/stack.yaml for real, on a swarm of this machine alone, and then no trace of it.

Strategy: what an engine is asked to change is written down before, and put back in the reverse order, also after an
error or Ctrl-C: labels of the node, images that were not there, and the swarm itself with the network that it makes, if
it was made here. An engine that was a swarm stays one.

Leaving a swarm harms other containers: Docker Engine then cannot resolve their names on any network until they are
restarted (measured with 20.10.24). So this demo creates no swarm on an engine where other containers have networks of
their own.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Console

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.base.units import show_count, show_us
from lab.engine.client import make_environ
from lab.metrics.verdict import find_failure
from lab.servers.backend import Completed
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from loadtests.contract import LoadResult

STACK = "socketlab-demo"
MODEL = "asyncio_streams"
WORKERS = 2
SECONDS = 5
USERS = 16

_FILE = ROOT / "deploy" / "stack.yaml"
_GATEWAY = "docker_gwbridge"
_HERE = "127.0.0.1"
_LABELS = ("lab.server", "lab.generator")

# Until the workers have joined, and the whole load is over, on a machine that does other things as well.
_RUN_SECONDS = 120.0
# For tasks, networks and gateways to go, which Swarm does in its own time.
_CLEAN_SECONDS = 60.0
_PAUSE = 0.5


def docker(*arguments: str, check: bool = True, environ: Mapping[str, str] | None = None) -> Completed:
    """Run a docker command; a failure is its last line."""
    done = subprocess.run(  # noqa: S603 - docker, with arguments made here
        ["docker", *arguments],  # noqa: S607 - wherever it is
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**make_environ(), **(environ or {})},
    )
    if check and done.returncode:
        lines = done.stderr.strip().splitlines()
        raise LabError(f"docker {' '.join(arguments[:2])}: {lines[-1] if lines else done.returncode}")
    return done


def demonstrate(console: Console) -> LoadResult:
    """Deploy the stack, wait for its result, and take everything back.

    Returns:
        What the master measured; see loadtests/window.py.

    Raises:
        LabError: it could not be done.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_uninterrupted_end())
        stack.enter_context(provide_images(console))
        node = stack.enter_context(provide_swarm(console))
        stack.enter_context(provide_labels(node))
        console.print(f"deploying {_FILE.relative_to(ROOT)}: {MODEL}, {WORKERS} workers, a master", style="dim")
        stack.enter_context(deploy())
        return wait_result(console)


@contextlib.contextmanager
def provide_images(console: Console) -> Iterator[None]:
    """Have the images here, which on one machine takes no registry; afterwards remove those that were not."""
    backend = Containers(STACK, Catalogue.load())
    images = [backend.catalogue.image(name) for name in (MODEL, "locust")]
    absent = [image for image in images if docker("image", "inspect", image, check=False).returncode]
    try:
        backend.build([MODEL, "locust"])
        yield
    finally:
        if absent:
            console.print(f"removing {', '.join(absent)}", style="dim")
            docker("image", "rm", "--force", *absent, check=False)


@contextlib.contextmanager
def provide_swarm(console: Console) -> Iterator[str]:
    """A swarm whose manager this engine is; gives the node's id.

    Raises:
        LabError: the engine is in a swarm that it does not manage, or leaving a swarm would harm other containers.
    """
    swarm = json.loads(docker("info", "--format", "{{json .Swarm}}").stdout)
    if swarm["LocalNodeState"] == "active":
        if not swarm["ControlAvailable"]:
            raise LabError("this engine is a worker of a swarm: run it on one of the swarm's managers")
        yield swarm["NodeID"]
        return
    if swarm["LocalNodeState"] != "inactive":
        raise LabError(f"this engine's swarm is in the state {swarm['LocalNodeState']}: `docker info` says more")
    if names := find_neighbours():
        raise LabError(
            f"containers run here on networks of their own ({', '.join(names[:5])}{', ...' if names[5:] else ''}), and "
            "Docker would forget their names when the swarm is left again. Stop them, or make this engine a swarm that "
            f"stays one: docker swarm init --advertise-addr {_HERE}"
        )
    had_gateway = not docker("network", "inspect", _GATEWAY, check=False).returncode
    console.print(f"making a swarm of this engine alone, on {_HERE}", style="dim")
    try:
        docker("swarm", "init", "--advertise-addr", _HERE, "--listen-addr", f"{_HERE}:2377")
        yield docker("info", "--format", "{{.Swarm.NodeID}}").stdout.strip()
    finally:
        console.print("leaving the swarm", style="dim")
        docker("swarm", "leave", "--force", check=False)
        if not had_gateway:
            _wait_gone(lambda: _remove_network(_GATEWAY), f"network {_GATEWAY}")


def find_neighbours() -> list[str]:
    """Return the running containers that can resolve each other's names: those on networks that users have created."""
    running = docker("ps", "--format", "{{json .}}").stdout.splitlines()
    found = [json.loads(line) for line in running]
    return [item["Names"] for item in found if set(item["Networks"].split(",")) - {"bridge", "host", "none", ""}]


@contextlib.contextmanager
def provide_labels(node: str) -> Iterator[None]:
    """The labels by which the stack's services find their machine: here all of them are one."""
    before: dict[str, str] = json.loads(docker("node", "inspect", node, "--format", "{{json .Spec.Labels}}").stdout)
    try:
        docker("node", "update", *(f"--label-add={name}=yes" for name in _LABELS), node)
        yield
    finally:
        for name in _LABELS:
            change = f"--label-add={name}={before[name]}" if name in before else f"--label-rm={name}"
            docker("node", "update", change, node, check=False)


@contextlib.contextmanager
def deploy() -> Iterator[None]:
    """The stack, until the end of the block."""
    load = f"--headless --only-summary --loglevel WARNING --models {MODEL} --workload ping --loop closed"
    load += f" --users {USERS} --spawn-rate 1000 --warm-up 1 --window {SECONDS} --expect-workers-max-wait 60"
    environ = {"LAB_MODEL": MODEL, "LAB_WORKERS": str(WORKERS), "LAB_LOAD": load}
    if left := docker("stack", "ps", STACK, "--quiet", check=False).stdout.split():
        raise LabError(f"there is a stack {STACK} of {len(left)} tasks already: docker stack rm {STACK}")
    try:
        # The images are on this machine and in no registry.
        docker("stack", "deploy", "--resolve-image=never", f"--compose-file={_FILE}", STACK, environ=environ)
        yield
    finally:
        docker("stack", "rm", STACK, check=False)
        _wait_gone(_is_stack_gone, f"the stack {STACK}")


def wait_result(console: Console) -> LoadResult:
    """Wait for the master's end, and read what it wrote.

    Raises:
        LabError: a task failed, or the master took too long or wrote nothing; with the last log lines.
    """
    deadline = time.monotonic() + _RUN_SECONDS
    seen: set[str] = set()
    while True:
        for service in ("server", "worker", "master"):
            for task in _tasks(service):
                line = f"{task['Name'].removeprefix(f'{STACK}_')}: {task['CurrentState'].split()[0].lower()}"
                if line not in seen:
                    seen.add(line)
                    console.print(f"  {line}", style="dim")
                if task["Error"] or task["CurrentState"].startswith(("Failed", "Rejected")):
                    raise LabError(f"{task['Name']}: {task['Error'] or task['CurrentState']}{_log_of(service)}")
        if any(task["CurrentState"].startswith("Complete") for task in _tasks("master")):
            break
        if time.monotonic() > deadline:
            raise LabError(f"the load was not over within {_RUN_SECONDS:.0f} s{_log_of('master')}")
        time.sleep(_PAUSE)
    for result in LoadResult.find_all("\n".join(_log("master"))):
        return result
    raise LabError(f"the master gave no result{_log_of('master')}")


def _tasks(service: str) -> list[dict[str, str]]:
    listed = docker("service", "ps", f"{STACK}_{service}", "--no-trunc", "--format", "{{json .}}").stdout
    return [json.loads(line) for line in listed.splitlines()]


def _log(service: str) -> list[str]:
    return docker("service", "logs", "--raw", f"{STACK}_{service}", check=False).stdout.splitlines()


def _log_of(service: str) -> str:
    lines = [line for line in _log(service) if line.strip()][-10:]
    return "\n  ".join(["; its log ends with:", *lines]) if lines else ""


def _is_stack_gone() -> bool:
    label = f"label=com.docker.stack.namespace={STACK}"
    lists = (["ps", "--all"], ["network", "ls"], ["service", "ls"])
    return not any(docker(*words, "--quiet", "--filter", label).stdout.split() for words in lists)


def _remove_network(name: str) -> bool:
    return not docker("network", "rm", name, check=False).returncode


def _wait_gone(is_gone: Any, what: str) -> None:
    deadline = time.monotonic() + _CLEAN_SECONDS
    while not is_gone():
        if time.monotonic() > deadline:
            raise LabError(f"{what} does not go away; look at `docker ps --all` and `docker network ls`")
        time.sleep(_PAUSE)


@contextlib.contextmanager
def _uninterrupted_end() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block, and nothing that it has to put back: a second one finds no ears."""

    def interrupt(number: int, frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] = ()) -> int:
    """Run the demo; 0 it gave load, 1 not one reply came, 2 it could not be run."""
    console = Console(stderr=True, highlight=False)
    try:
        found = demonstrate(console)
    except LabError as error:
        click.echo(f"swarm-demo: {error}", err=True)
        return 2
    except KeyboardInterrupt:
        click.echo("swarm-demo: interrupted; everything is as it was", err=True)
        return 130
    p50, p99 = (show_us(found.service.percentile(share)) for share in (0.5, 0.99))
    click.echo(
        f"{found.model}: {show_count(found.rate)} requests/s from {found.generators} workers, "
        f"p50 {p50} µs, p99 {p99} µs, {found.failed} failures, over an overlay network"
    )
    if found.disturbances:
        click.echo(f"swarm-demo: disturbed: {'; '.join(found.disturbances)}", err=True)
        return 2
    if failure := find_failure(found.answered, found.failures, found.warm_up_failures):
        click.echo(f"swarm-demo: {failure.bound}: {failure.reason}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
