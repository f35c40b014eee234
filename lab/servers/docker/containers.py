"""Models as containers on an internal network: one Compose project for each lab.

Strategy: Compose starts the containers; everything else is a question to the engine, by Compose's own labels. So there
is no state to lose: the label of the project also finds what a killed lab, an interrupted `up` or a restarted daemon
has left.
"""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lab.base.errors import LabError, NotReadyError, last_lines
from lab.metrics.sample import Meter
from lab.servers import readiness
from lab.servers.backend import READY_SECONDS, ModelState
from lab.servers.catalogue import GALLERY, Catalogue, GalleryServer, Listener, Model
from lab.servers.children import STOP_SECONDS
from lab.servers.docker.cleanup import list_ids, purge, remove
from lab.servers.docker.command import QUIET_SECONDS, end, last_words, open_process, read_lines, run_docker
from lab.servers.docker.compose import SHELL, Changes, Compose
from lab.servers.docker.describe import read_engine, read_versions
from lab.servers.docker.helpers import ContainerHelpers
from lab.servers.docker.images import build_images
from lab.servers.readiness import Outcome
from lab.servers.runtime import find_mark, make_private

if TYPE_CHECKING:
    from lab.servers.docker.model_container import ModelContainers

_SERVICE = "com.docker.compose.service"

_LAST_LINES = 10
# Between two rounds of health checks, or two looks for a container. Each of them starts a process.
_POLL_SECONDS = 0.1


class Containers:
    """The lab of one project as containers. See `Backend`."""

    name = "docker"
    in_containers = True

    def __init__(self, project: str, catalogue: Catalogue) -> None:
        self.project = project
        self.catalogue = catalogue
        self._compose = Compose(project, catalogue)
        self.helpers = ContainerHelpers(self._compose)

    @cached_property
    def faults(self) -> "ModelContainers":
        """See `Backend.faults`."""
        from lab.servers.docker.model_container import ModelContainers

        return ModelContainers(self._compose)

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

    def logs(self, model: str) -> str:
        done = run_docker("logs", self._compose.name_container(self.catalogue.known_host(model)), check=False)
        if done.returncode:
            raise LabError(f"{model} was not started: `lab up {model}`")
        return done.stdout + done.stderr

    def restart(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self.faults.restart(model)
        self._wait_ready([model], timeout)

    def stop(self, model: str) -> int:
        return self.faults.stop(model)

    def wait_ready(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._wait_ready([model], timeout)

    def build(self, services: Iterable[str]) -> None:
        build_images(self._compose, services)

    def container_name(self, model: str) -> str:
        return self._compose.name_model(model)

    def meter(self, model: str) -> Meter:
        from lab.metrics.meters import open_container_meter

        return open_container_meter(self._compose.name_model(model))

    def pin(self, model: str, cores: Sequence[int]) -> None:
        self.faults.pin(model, cores)

    def environ(self, model: str) -> Mapping[str, str]:
        return self.catalogue.environ(model)

    def describe(self) -> dict[str, str | None]:
        return {"backend": self.name, "engine": read_engine()}

    def describe_models(self, models: Iterable[Model]) -> dict[str, str | None]:
        from lab.servers.docker.model_container import read_images

        chosen = list(models)
        return {
            "servers": read_versions(self._read_logs(chosen)),
            "images": read_images({model.name: self.catalogue.image(model.name) for model in chosen}),
        }

    def _read_logs(self, models: Iterable[Model]) -> Iterator[str]:
        for model in models:
            with contextlib.suppress(LabError):
                yield self.logs(model.name)

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
        command = ["python", "-m", readiness.__name__, request]
        deadline = time.monotonic() + timeout + STOP_SECONDS
        outcomes: dict[str, Outcome] = {}
        with self.helpers.start("the readiness probe", command) as probe:
            while waiting := [model for model in models if model not in outcomes]:
                try:
                    outcome = probe.poll_for(Outcome, QUIET_SECONDS)
                except LabError as error:
                    self._check_alive(waiting)
                    raise NotReadyError(str(error)) from None
                if outcome:
                    outcomes[outcome.model] = outcome
                    continue
                self._check_alive(waiting)
                if time.monotonic() > deadline:
                    raise NotReadyError(f"the readiness probe does not end{probe.describe_output()}")
        if late := [outcome for outcome in outcomes.values() if not outcome.ready]:
            self._check_alive(outcome.model for outcome in late)
            model, why = late[0].model, late[0].error or ""
            raise NotReadyError(readiness.describe_silence(model, why, timeout, self._last_lines(model)))

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
            failures.append(
                readiness.describe_silence(name, complaint, timeout, self._last_lines(name, with_stdout=True))
            )
        return failures

    def _run_checks(self, checks: Mapping[str, Sequence[str]], deadline: float) -> Iterator[tuple[str, str | None]]:
        """Run a command in the container of each service, all at the same time.

        Give each service whose command has ended before the deadline, with the reason of its failure, or None.
        """
        with contextlib.ExitStack() as stack:
            running = {}
            for name, check in checks.items():
                running[name] = open_process(["docker", "exec", self._compose.name_container(name), *check])
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
        log = run_docker("logs", "--tail", str(2 * _LAST_LINES), self._compose.name_container(model), check=False)
        return last_lines((log.stdout + "\n" if with_stdout else "") + log.stderr, _LAST_LINES)


def _read_check(container: Mapping[str, Any]) -> list[str]:
    """Return a container's health check as a command; without one, a command that fails and says so."""
    match (container["Config"].get("Healthcheck") or {}).get("Test"):
        case ["CMD", *command]:
            return [str(word) for word in command]
        case ["CMD-SHELL", text]:
            return ["/bin/sh", "-c", str(text)]
    return ["/bin/sh", "-c", "echo 'it has no health check in compose.yaml' >&2; exit 1"]


def _describe_exit(state: ModelState) -> str:
    if state.state == "missing":
        return f"{state.model} has no container: another program removed it while it started"
    exited = f"{state.model} exited with code {state.exit_code} instead of answering"
    if not state.last_lines:
        return f"{exited}; its log is empty"
    return "\n  ".join([f"{exited}; its log ends with:", *state.last_lines])
