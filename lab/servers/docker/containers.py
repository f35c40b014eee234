"""Models as containers on an internal network: one Compose project for each lab.

Strategy: Compose starts the containers; everything else is a question to the engine, by Compose's own labels. So there
is no state to lose: the label of the project also finds what a killed lab, an interrupted `up` or a restarted daemon
has left.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from lab.base.environ import ENV_LIFELINE
from lab.base.errors import LabError, NotReadyError
from lab.servers import readiness
from lab.servers.backend import READY_SECONDS, Completed, Instrument, ModelState
from lab.servers.catalogue import GALLERY, Catalogue, GalleryServer, Listener, Model
from lab.servers.children import STOP_SECONDS, close_child, open_child, open_lifeline
from lab.servers.docker.cleanup import list_ids, purge, remove
from lab.servers.docker.command import (
    NO_DOCKER,
    call,
    end,
    last_words,
    make_environ,
    open_process,
    read_lines,
    run_docker,
)
from lab.servers.docker.compose import Changes, Compose
from lab.servers.docker.fault_controls import SHELL, FaultControls
from lab.servers.docker.images import build_images
from lab.servers.runtime import find_mark, make_private

_SERVICE = "com.docker.compose.service"
_ENV_RUN = "LAB_RUN"

_LAST_LINES = 10
# Between two rounds of health checks, or two looks for a container. Each of them starts a process.
_POLL_SECONDS = 0.1

# Removes a container at the end of its stdin, which is the end of the lab. It tries again, since the container may not
# exist yet.
_REMOVE_CONTAINER = """
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10; do docker rm --force "$0"; sleep 1; done
"""


class Containers(FaultControls):
    """The lab of one project as containers. See `Backend`."""

    name = "docker"

    def __init__(self, project: str, catalogue: Catalogue) -> None:
        super().__init__(project, catalogue)
        self._compose = Compose(project, catalogue)

    def up(
        self, models: Iterable[str | Model] = (), *, timeout: float = READY_SECONDS, mutual_tls: bool = False
    ) -> None:
        selected = [model.name for model in self.catalogue.select(models)]
        with self._started([SHELL, *selected], mutual_tls=mutual_tls):
            # The probe starts only now. It could start as soon as its container runs, but that gains nothing
            # (measured): it takes CPU from Compose, and resolves names that do not exist yet.
            self._wait_ready(selected, timeout)

    def up_gallery(self, servers: Iterable[GalleryServer], *, timeout: float = READY_SECONDS) -> None:
        selected = [server.name for server in servers]
        with self._started([SHELL, *selected]):
            failures = self._wait_healthy(selected, timeout)
        if failures:
            raise NotReadyError("\n".join(failures))

    def down(self) -> None:
        purge(self.project)

    def state(self) -> list[ModelState]:
        found = self._inspect("lab.model")
        return [
            self._state_of(model.name, model.family, model.addresses, found.get(model.name))
            for model in self.catalogue.models
        ]

    def gallery(self) -> list[ModelState]:
        found = self._inspect("lab.gallery")
        return [
            self._state_of(server.name, GALLERY, server.addresses, found.get(server.name))
            for server in self.catalogue.gallery
        ]

    def targets(self) -> list[Listener]:
        return [listener for state in self.state() for listener in state.listeners]

    def run(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        capture: bool = False,
        stdin: str | None = None,
        interactive: bool = False,
        timeout: float | None = None,
    ) -> Completed:
        # The end of `docker exec` does not end the command in the container. This variable finds its processes there.
        mark = uuid4().hex
        command = ["docker", "exec", "--env", f"{_ENV_RUN}={mark}"]
        if interactive:
            command += ["--interactive", "--tty"] if sys.stdin.isatty() else ["--interactive"]
        elif stdin is not None:
            command += ["--interactive"]
        for name, value in (environ or {}).items():
            command += ["--env", f"{name}={value}"]
        command += [self._name_container(SHELL), *arguments]
        try:
            done = call(command, capture=capture, stdin=stdin, interactive=interactive, timeout=timeout)
        except BaseException:
            self._kill_marked(mark)
            raise
        # `docker exec` has no exit code of its own for "no such container": it is 1 as well.
        if done.returncode in (1, 125, 126, 127) and not self._is_running(SHELL):
            raise LabError(f"the lab {self.project} is not up: `lab up` starts it")
        return done

    @contextlib.contextmanager
    def start(self, arguments: Sequence[str], *, log: Path) -> Iterator[Instrument]:
        shell = self._name_container(SHELL)
        try:
            process = open_child(
                ["docker", "exec", "--interactive", shell, *arguments], environ=make_environ(), log=log
            )
        except FileNotFoundError:
            raise LabError(NO_DOCKER) from None
        try:
            yield Instrument(process, shell, log)
        finally:
            close_child(process)

    def run_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        capture: bool = False,
        publish: bool = False,
        stdin: str | None = None,
        timeout: float | None = None,
    ) -> Completed:
        self.build([service])
        name = self._compose.name_run(service)
        command = self._compose.run_command(name, service, arguments, environ or {}, publish=publish, remove=True)
        try:
            with open_lifeline(environ) as empty, _removed_without_lab(name, environ):
                environ = self._compose.environ() | dict(environ or {})
                return call(command, capture=capture, stdin=stdin, empty_stdin=empty, environ=environ, timeout=timeout)
        except BaseException:
            remove("container", [name])
            raise

    @contextlib.contextmanager
    def start_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        publish: bool = False,
        log: Path | None = None,
    ) -> Iterator[Instrument]:
        self.build([service])
        name = self._compose.name_run(service)
        # Compose does not remove the container: if two programs remove one at the same time, its network can keep an
        # endpoint that nothing can remove any more (seen on Docker Engine 20.10).
        command = self._compose.run_command(name, service, arguments, environ or {}, publish=publish, remove=False)
        try:
            own = dict(environ or {})
            process = open_child(
                command, environ=self._compose.environ() | own, log=log, has_lifeline=ENV_LIFELINE in own
            )
        except FileNotFoundError:
            raise LabError(NO_DOCKER) from None
        try:
            with _removed_without_lab(name, environ):
                # Each `compose run` creates the project's networks that are missing. Two at the same time create two of
                # the same name, and Docker then cannot choose. So the next one may start once this container exists.
                while process.poll() is None and run_docker("container", "inspect", name, check=False).returncode:
                    time.sleep(_POLL_SECONDS)
                # Docker's DNS resolves the name of a container.
                yield Instrument(process, name, log)
        finally:
            remove("container", [name])
            close_child(process)

    def logs(self, model: str) -> str:
        done = run_docker("logs", self._name_container(self.catalogue.known_host(model)), check=False)
        if done.returncode:
            raise LabError(f"{model} was not started: `lab up {model}`")
        return done.stdout + done.stderr

    def restart(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._of_model(model, "restart", "--time", str(int(STOP_SECONDS)))
        self._wait_ready([model], timeout)

    def stop(self, model: str) -> int:
        self._of_model(model, "stop", "--time", str(int(STOP_SECONDS)))
        return int(self._of_model(model, "inspect", "--format", "{{.State.ExitCode}}"))

    def wait_ready(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._wait_ready([model], timeout)

    def build(self, services: Iterable[str]) -> None:
        """Build the images of these Compose services that are missing or out of date; see `build_images`."""
        build_images(self._compose, services)

    @contextlib.contextmanager
    def _started(self, services: Sequence[str], *, mutual_tls: bool = False) -> Iterator[None]:
        """Build images and start services; if the block fails, remove what this call has created."""
        self.build(services)
        # This file says that there are containers of this project when no engine answers.
        mark = find_mark(self.project)
        make_private(mark.parent)
        mark.touch()
        changes = Changes()
        try:
            for line in self._compose.up(services, mutual_tls=mutual_tls):
                changes.note(line)
            yield
        except BaseException:
            # Compose gets a Ctrl-C as well, and may still be working: down() repeats until nothing is left.
            if changes.is_new:
                self.down()
            else:
                remove("container", changes.created)
            raise

    def _wait_ready(self, models: Sequence[str], timeout: float) -> None:
        inside = [listener for model in models for listener in self.catalogue.listeners_of(model)]
        targets = readiness.choose_targets((item.model, item.service, item.address) for item in inside)
        request = json.dumps({"timeout": timeout, "targets": targets})
        shell = self._name_container(SHELL)
        probe = open_process(["docker", "exec", shell, "python", "-m", readiness.__name__, request])
        waiting = dict.fromkeys(models, "no answer from the probe")
        complaints = []
        try:
            for line in read_lines(probe, time.monotonic() + timeout + STOP_SECONDS):
                if line is None:
                    self._check_alive(waiting)
                elif line.startswith("{"):
                    outcome = json.loads(line)
                    if outcome["ready"]:
                        waiting.pop(outcome["model"], None)
                        if not waiting:
                            break
                    else:
                        waiting[outcome["model"]] = outcome["error"]
                else:
                    complaints.append(line)
        finally:
            end(probe)
        if not waiting:
            return
        self._check_alive(waiting)
        if complaints:
            raise NotReadyError(f"the readiness probe could not run in {shell}: {last_words(complaints[-1])}")
        model, error = next(iter(waiting.items()))
        raise NotReadyError(_describe_silence(model, error, timeout, self._last_lines(model)))

    def _wait_healthy(self, servers: Sequence[str], timeout: float) -> list[str]:
        """Wait until the health check of each server of the gallery has passed.

        Strategy: run the health checks of compose.yaml, which are then the only definition of health. They run at once
        and again and again; Docker would first wait for an interval of seconds.

        Returns:
            A message for each server that has exited, or has not answered in time.
        """
        deadline = time.monotonic() + timeout
        checks = {name: _read_check(container) for name, container in self._inspect("lab.gallery").items()}
        waiting = dict.fromkeys(servers, "its health check did not finish")
        failures = []
        while waiting and time.monotonic() < deadline:
            asked = {name: checks.get(name, []) for name in waiting}
            for name, complaint in self._run_checks(asked, deadline):
                if complaint is None:
                    del waiting[name]
                else:
                    waiting[name] = complaint
            if waiting:
                for state in self.gallery():
                    if state.model in waiting and state.state != "running":
                        del waiting[state.model]
                        failures.append(_describe_exit(state))
                time.sleep(_POLL_SECONDS)
        for name, complaint in waiting.items():
            failures.append(_describe_silence(name, complaint, timeout, self._last_lines(name, with_stdout=True)))
        return failures

    def _run_checks(self, checks: Mapping[str, Sequence[str]], deadline: float) -> Iterator[tuple[str, str | None]]:
        """Run a command in the container of each service, all at the same time.

        Gives:
            Each service whose command has ended before the deadline, with the reason of its failure, or None.
        """
        with contextlib.ExitStack() as stack:
            running = {}
            for name, check in checks.items():
                running[name] = open_process(["docker", "exec", self._name_container(name), *check])
                stack.callback(end, running[name])
            for name, each in running.items():
                output = "\n".join(line for line in read_lines(each, deadline) if line)
                # A `docker exec` that is cut off exits with 0, which says nothing.
                if time.monotonic() < deadline:
                    yield name, (last_words(output) or "its health check failed") if each.wait() else None

    def _check_alive(self, models: Iterable[str]) -> None:
        states = {state.model: state for state in self.state()}
        for model in models:
            state = states[model]
            if state.state != "running":
                raise NotReadyError(_describe_exit(state))

    def _inspect(self, label: str) -> dict[str, dict[str, Any]]:
        """Return `docker inspect` of the containers with a label, by Compose service."""
        ids = list_ids("container", self.project, f"label={label}")
        found = json.loads(run_docker("inspect", *ids, check=False).stdout or "[]") if ids else []
        return {
            item["Config"]["Labels"][_SERVICE]: item
            for item in found
            if item["Config"]["Labels"].get("com.docker.compose.oneoff") != "True"
        }

    def _state_of(
        self, model: str, family: str, listeners: tuple[Listener, ...], container: Mapping[str, Any] | None
    ) -> ModelState:
        if container is None:
            return ModelState(model, family, self.name, "missing")
        if container["State"]["Running"]:
            return ModelState(model, family, self.name, "running", listeners=listeners)
        lines = self._last_lines(model, with_stdout=family == GALLERY)
        if container["State"].get("OOMKilled"):
            lines.append("the kernel ended it at its memory limit (mem_limit in compose.yaml)")
        if container["State"].get("Error"):
            lines.append(container["State"]["Error"])
        return ModelState(model, family, self.name, "exited", container["State"]["ExitCode"], last_lines=tuple(lines))

    def _last_lines(self, model: str, *, with_stdout: bool = False) -> list[str]:
        """Return the end of the log that a container writes to stderr.

        Args:
            with_stdout: include stdout, to which a server of the gallery may log. A model writes a line of JSON to it.
        """
        log = run_docker("logs", "--tail", str(2 * _LAST_LINES), self._name_container(model), check=False)
        return [*(log.stdout.splitlines() if with_stdout else []), *log.stderr.splitlines()][-_LAST_LINES:]

    def _is_running(self, service: str) -> bool:
        done = run_docker("inspect", "--format", "{{.State.Running}}", self._name_container(service), check=False)
        return done.stdout.strip() == "true"

    def _kill_marked(self, mark: str) -> None:
        """End the processes in the container that `run` has started."""
        script = (
            f"for e in /proc/[0-9]*/environ; do grep -qs {_ENV_RUN}={mark} $e || continue; "
            "p=${e%/environ}; kill -9 ${p#/proc/}; done"
        )
        with contextlib.suppress(LabError):
            run_docker("exec", self._name_container(SHELL), "sh", "-c", script, check=False)


@contextlib.contextmanager
def _removed_without_lab(name: str, environ: Mapping[str, str] | None) -> Iterator[None]:
    """If this process dies in the block, have a container removed; only with `ENV_LIFELINE` in the environment.

    The end of the container's own stdin is not enough: if a Docker client's stdin ends before the container runs, the
    container's stdin stays open (seen on Docker Engine 20.10).
    """
    if not environ or ENV_LIFELINE not in environ:
        yield
        return
    null = subprocess.DEVNULL
    # In a session of its own: a Ctrl-C is for the lab, which then removes the container itself.
    with subprocess.Popen(  # noqa: S603 - a script of this file
        ["/bin/sh", "-c", _REMOVE_CONTAINER, name],
        stdin=subprocess.PIPE,
        stdout=null,
        stderr=null,
        start_new_session=True,
    ) as remover:
        try:
            yield
        finally:
            remover.kill()


def _read_check(container: Mapping[str, Any]) -> list[str]:
    """Return a container's health check as a command; without one, a command that fails and says so."""
    match (container["Config"].get("Healthcheck") or {}).get("Test"):
        case ["CMD", *command]:
            return [str(word) for word in command]
        case ["CMD-SHELL", text]:
            return ["/bin/sh", "-c", str(text)]
    return ["/bin/sh", "-c", "echo 'it has no health check in compose.yaml' >&2; exit 1"]


def _describe_silence(name: str, error: str, timeout: float, lines: Iterable[str]) -> str:
    return "\n  ".join([f"{name} runs, but gave no answer within {timeout:g} s ({error}); its log ends with:", *lines])


def _describe_exit(state: ModelState) -> str:
    if state.state == "missing":
        return f"{state.model} has no container: another program removed it while it started"
    exited = f"{state.model} exited with code {state.exit_code} instead of answering"
    if not state.last_lines:
        return f"{exited}; its log is empty"
    return "\n  ".join([f"{exited}; its log ends with:", *state.last_lines])
