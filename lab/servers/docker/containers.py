"""Models as containers on an internal network: one Compose project a lab.

Strategy: Compose starts them, and everything else is asked of the engine by Compose's own labels. So there is no state
to lose: what a killed lab, an interrupted `up` or a restarted daemon left behind is found by the project's label, the
same as what ran well.

Images carry a digest of what they are built from as the label `lab.inputs`. To know that they are up to date costs one
question to the engine and no build, which matters because it is a part of every `lab up`; and it holds for each
engine that is asked, where a stamp file would have to be told of every `docker rmi`.
"""

import contextlib
import hashlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from lab.base import interrupts
from lab.base.errors import EngineAwayError, LabError, NotReadyError
from lab.servers.backend import (
    LIFELINE,
    READY_SECONDS,
    STOP_SECONDS,
    Completed,
    Instrument,
    ModelState,
    close_child,
    die_with_lab,
    find_mark,
    forget,
    make_private,
    open_child,
    open_lifeline,
    read_limits,
)
from lab.servers.catalogue import GALLERY, Catalogue, GalleryServer, Listener, Model
from lab.servers.certificates import provide
from lab.servers.readiness import choose_targets

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_INPUTS = "lab.inputs"
_PART = "lab.part"  # on everything of a lab that is not a model: containers, networks, volumes
_OURS = re.compile(r"[ ,]lab\.(model|gallery|part)=")
_RUN_MARK = "LAB_RUN"

_SHELL = "shell"
_LAST_LINES = 10
# While models get ready, how often to look whether one of them has exited instead. Not sooner than a warm lab needs.
_LOOK_SECONDS = 2.0
# Between two rounds of health checks, or two looks for a container, each of which costs a process.
_PAUSE = 0.1
# What Docker and Compose say on the way to an error, and what they put before it.
_NOISE = re.compile(r"^(time=\S+ level=warning .*|\s*(Container|Network|Volume|Image) .*|\s*)$")
_PREFIX = re.compile(r"^(docker: |error: |error response from daemon: )+", re.IGNORECASE)

# What the clients of today and of yesterday say when no engine answers, or not to this user.
_AWAY = re.compile(
    r"cannot connect to the docker daemon|error during connect|failed to connect to the docker api"
    r"|permission denied while trying to connect",
    re.IGNORECASE,
)

_NO_DOCKER = "there is no `docker` command here: `lab doctor` says what to do"
# The most that Compose may take to start containers whose images are there.
START_SECONDS = 120.0

# Microseconds: the kernel's own, and Docker's.
_CPU_PERIOD = 100_000

# What compose.yaml asks for by itself.
NOFILE = 16384

# Waits for the end of its stdin, which is that of the lab, and removes a container, also one that is about to be made.
_REAP = """
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10; do docker rm --force "$0"; sleep 1; done
"""

_IGNORED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}


class Containers:
    """The lab of one project as containers. See `Backend`."""

    name = "docker"

    def __init__(self, project: str, catalogue: Catalogue) -> None:
        self.project = project
        self.catalogue = catalogue

    def up(
        self, models: Iterable[str | Model] = (), *, timeout: float = READY_SECONDS, mutual_tls: bool = False
    ) -> None:
        selected = [model.name for model in self.catalogue.select(models)]
        with self._started([_SHELL, *selected], mutual_tls=mutual_tls):
            # The probe could start as soon as its container runs. It would only take CPU from Compose, and ask for
            # names that are not there yet; it was measured, and gains nothing.
            self._wait_ready(selected, timeout)

    def up_gallery(self, servers: Iterable[GalleryServer], *, timeout: float = READY_SECONDS) -> None:
        selected = [server.name for server in servers]
        with self._started([_SHELL, *selected]):
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
        # Killing `docker exec` does not end what it started in the container: the mark finds it there.
        mark = uuid4().hex
        command = ["docker", "exec", "--env", f"{_RUN_MARK}={mark}"]
        if interactive:
            command += ["--interactive", "--tty"] if sys.stdin.isatty() else ["--interactive"]
        elif stdin is not None:
            command += ["--interactive"]
        for name, value in (environ or {}).items():
            command += ["--env", f"{name}={value}"]
        command += [self._container_name(_SHELL), *arguments]
        try:
            done = _call(command, capture=capture, stdin=stdin, interactive=interactive, timeout=timeout)
        except BaseException:
            self._kill_marked(mark)
            raise
        # `docker exec` has no exit code of its own for "no such container": it is 1 as well.
        if done.returncode in (1, 125, 126, 127) and not self._is_running(_SHELL):
            raise LabError(f"the lab {self.project} is not up: `lab up` starts it")
        return done

    @contextlib.contextmanager
    def start(self, arguments: Sequence[str], *, log: Path) -> Iterator[Instrument]:
        shell = self._container_name(_SHELL)
        try:
            process = open_child(
                ["docker", "exec", "--interactive", shell, *arguments], environ=_make_environ(), log=log
            )
        except FileNotFoundError:
            raise LabError(_NO_DOCKER) from None
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
        name = self._name_run(service)
        command = self._run_command(name, service, arguments, environ or {}, publish=publish, remove=True)
        try:
            with open_lifeline(environ) as nothing, _removed_without_lab(name, environ):
                environ = self._environ() | dict(environ or {})
                return _call(command, capture=capture, stdin=stdin, nothing=nothing, environ=environ, timeout=timeout)
        except BaseException:
            self._remove("container", [name])
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
        name = self._name_run(service)
        # Not removed by Compose as well: two who remove a container at once can leave its network with an endpoint that
        # nobody can remove any more (seen on Docker Engine 20.10).
        command = self._run_command(name, service, arguments, environ or {}, publish=publish, remove=False)
        try:
            own = dict(environ or {})
            process = open_child(command, environ=self._environ() | own, log=log, has_lifeline=LIFELINE in own)
        except FileNotFoundError:
            raise LabError(_NO_DOCKER) from None
        try:
            with _removed_without_lab(name, environ):
                # Each `compose run` makes the project's networks that are missing, and two at once make two of one
                # name, between which Docker then cannot choose. So the next may start when this one has its container.
                while process.poll() is None and _docker("container", "inspect", name, check=False).returncode:
                    time.sleep(_PAUSE)
                # Docker's DNS knows a container by its name as well.
                yield Instrument(process, name, log)
        finally:
            self._remove("container", [name])
            close_child(process)

    def logs(self, model: str) -> str:
        done = _docker("logs", self._container_name(self.catalogue.check_host(model)), check=False)
        if done.returncode:
            raise LabError(f"{model} was not started: `lab up {model}`")
        return done.stdout + done.stderr

    def restart(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._of_model(model, "restart", "--time", str(int(STOP_SECONDS)))
        self._wait_ready([model], timeout)

    def kill(self, model: str, signal: int) -> None:
        self._of_model(model, "kill", "--signal", str(int(signal)))

    def stop(self, model: str) -> int:
        self._of_model(model, "stop", "--time", str(int(STOP_SECONDS)))
        return int(self._of_model(model, "inspect", "--format", "{{.State.ExitCode}}"))

    def wait_ready(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._wait_ready([model], timeout)

    def pause(self, model: str) -> None:
        self._of_model(model, "pause")

    def unpause(self, model: str) -> None:
        if self._of_model(model, "inspect", "--format", "{{.State.Paused}}").strip() == "true":
            self._of_model(model, "unpause")

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        name = self.container_name(model)
        done = _docker("exec", name, "python3", "-c", script, "1", *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {_last_words(done.stderr or done.stdout)}")
        return done.stdout

    def run_in_network(self, model: str, arguments: Sequence[str]) -> str:
        where = self.container_name(model)
        # Never with more than this, and gone when the command is; of its project, so that `down` finds it.
        labels = [f"--label={_PROJECT}={self.project}", f"--label={_PART}=instrument"]
        rights = [
            "--user=0",
            "--read-only",
            "--cap-drop=ALL",
            "--cap-add=NET_ADMIN",
            "--security-opt=no-new-privileges",
        ]
        # That of the shell which runs: a tag may have gone to another build meanwhile.
        image = _docker("inspect", "--format", "{{.Image}}", self._container_name(_SHELL)).stdout.strip()
        done = _docker("run", "--rm", *labels, *rights, f"--network=container:{where}", image, *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {' '.join((done.stderr or done.stdout).split())}")
        return done.stdout

    def disconnect(self, model: str) -> None:
        _docker("network", "disconnect", f"{self.project}_lab", self._container_name(model))

    def connect(self, model: str) -> None:
        if not self._is_connected(model):
            network, name = f"{self.project}_lab", self._container_name(model)
            _docker("network", "connect", "--alias", model, network, name)

    def _is_connected(self, model: str) -> bool:
        return f"{self.project}_lab" in json.loads(
            self._of_model(model, "inspect", "--format", "{{json .NetworkSettings.Networks}}")
        )

    def limit_cpu(self, model: str, cores: float | None) -> None:
        quota = -1 if cores is None else int(cores * _CPU_PERIOD)
        self._of_model(model, "update", "--cpu-period", str(_CPU_PERIOD), "--cpu-quota", str(quota))

    def memory_limit(self, model: str) -> tuple[int, int]:
        form = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"
        memory, swap = map(int, self._of_model(model, "inspect", "--format", form).split())
        return memory, swap

    def limit_memory(self, model: str, memory: int, swap: int) -> None:
        self._of_model(model, "update", "--memory", str(memory), "--memory-swap", str(swap))

    def container_name(self, model: str) -> str:
        """The name of a model's container, whether there is one or not."""
        return self._container_name(self.catalogue[model].name)

    def build(self, services: Iterable[str]) -> None:
        """Build the images of these Compose services that are missing, or older than what they are built from.

        Raises:
            LabError: a build failed; with the end of its output.
        """
        wanted = self._read_inputs(services)
        if not wanted:
            return
        images = {service: self.catalogue.image(service) for service in wanted}
        found = _docker(
            "image", "inspect", *images.values(), "--format", "{{json .RepoTags}} {{json .Config.Labels}}", check=False
        )
        built = read_built(found.stdout)
        stale = [name for name, image in images.items() if built.get(_with_tag(image)) != wanted[name]]
        if stale:
            self._build(stale, wanted)

    def _build(self, services: Sequence[str], inputs: Mapping[str, str]) -> None:
        from lab.engine import EngineError, base_image

        try:
            base_image.provide()
        except EngineError as error:
            raise LabError(str(error)) from None
        print(f"lab: building {', '.join(services)}", file=sys.stderr, flush=True)
        labels = {service: {"build": {"labels": {_INPUTS: inputs[service]}}} for service in services}
        command = [*self._compose_command("-"), "build", *services]
        # A person sees its progress; otherwise only its end counts, and only if it failed.
        stdin = json.dumps({"services": labels})
        environ = self._environ(for_build=True)
        done = _call(command, capture=not sys.stderr.isatty(), stdin=stdin, environ=environ)
        if done.returncode:
            lines = [
                line for line in (done.stdout or "").splitlines() + (done.stderr or "").splitlines() if line.strip()
            ]
            raise LabError("\n  ".join([f"building {', '.join(services)} failed; its output ends with:", *lines[-15:]]))
        # The images that these replaced have lost their name; nobody else's are touched.
        _docker("image", "prune", "--force", "--filter", f"label={_INPUTS}", check=False)

    def _read_inputs(self, services: Iterable[str]) -> dict[str, str]:
        """Compose service -> digest of what its image is built from; those that only name an image are left out."""
        digests = {}
        root = self.catalogue.files[0].parent
        for service in services:
            build = self.catalogue.definitions.get(service, {}).get("build")
            if build is None:
                continue
            context = root / build.get("context", ".")
            # Where the context lies says nothing about what is in it.
            options = {key: value for key, value in build.items() if key != "context"}
            digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
            digest.update(_digest_of_context(context, build.get("dockerfile", "Dockerfile")))
            digests[service] = digest.hexdigest()
        return digests

    def _compose_command(self, *more_files: str) -> list[str]:
        # No .env: the catalogue, and models as processes, know nothing of it.
        command = ["docker", "compose", "--ansi", "never", "--env-file", os.devnull, "--project-name", self.project]
        for file in (*map(str, self.catalogue.files), *more_files):
            command += ["--file", file]
        return command

    def _name_run(self, service: str) -> str:
        return f"{self.project}-{service}-run-{uuid4().hex[:8]}"

    def _run_command(
        self, name: str, service: str, arguments: Sequence[str], environ: Iterable[str], *, publish: bool, remove: bool
    ) -> list[str]:
        """`docker compose run`; what the variables hold it takes from its own environment, which nobody else reads."""
        # --no-TTY: its output is read by a program or goes to a log as often as to a terminal.
        command = [*self._compose_command(), "run", "--no-deps", "--no-TTY", "--name", name]
        if remove:
            command += ["--rm"]
        if publish:
            command += ["--service-ports"]
        for key in environ:
            command += ["--env", key]
        return [*command, service, *arguments]

    def _environ(self, *, mutual_tls: bool = False, for_build: bool = False) -> dict[str, str]:
        """The environment for Compose: what compose.yaml leaves to the machine.

        That is where the certificates are, the CA of a TLS-inspecting proxy, for pip in a build, and how many files a
        container may have open where the engine itself may not have as many as compose.yaml asks for.
        """
        from lab.engine.client import is_own_engine
        from lab.engine.daemon import read_nofile_limit

        environ = _make_environ(for_build=for_build)
        environ["LAB_TLS_DIR"] = str(provide(self.catalogue.hosts))
        environ["LAB_TLS_CLIENT_CA"] = "/run/secrets/tls_ca" if mutual_tls else ""
        authority = environ.get("SSL_CERT_FILE", "")
        if authority and Path(authority).is_file():
            environ.setdefault("LAB_CA_FILE", authority)
        is_here = is_own_engine(os.environ)
        if is_here and (limit := read_nofile_limit()) is not None and limit < NOFILE:
            environ.setdefault("LAB_NOFILE", str(limit))
        return environ

    @contextlib.contextmanager
    def _started(self, services: Sequence[str], *, mutual_tls: bool = False) -> Iterator[None]:
        """Have Compose start services, their images up to date; if the block fails, what is new of them goes."""
        self.build(services)
        self._mark()
        changes = _Changes()
        try:
            for line in self._start(services, mutual_tls=mutual_tls):
                changes.note(line)
            yield
        except BaseException:
            # Compose gets a Ctrl-C as well, and may still be at it: down() looks until nothing is left.
            if changes.is_new:
                self.down()
            else:
                self._remove("container", changes.created)
            raise

    def _mark(self) -> None:
        """Note that there are containers of this project, for the time when no engine answers."""
        mark = find_mark(self.project)
        make_private(mark.parent)
        mark.touch()

    def _start(self, services: Sequence[str], *, mutual_tls: bool) -> Iterator[str]:
        """Have Compose start services; gives its messages as they come.

        Raises:
            LabError: it could not; with the line that says why.
        """
        command = [*self._compose_command("-"), "up", "--detach", "--no-build", "--quiet-pull", *services]
        said = []
        chosen = json.dumps({"services": self._choose_limits(services)})
        compose = _open(command, environ=self._environ(mutual_tls=mutual_tls), stdin=chosen)
        try:
            for line in _read_lines(compose, time.monotonic() + START_SECONDS):
                if line is not None:
                    said.append(line)
                    yield line
        finally:
            _end(compose)
        if compose.returncode:
            _check_engine("\n".join(said))
            raise LabError(_last_words("\n".join(said)) or f"`docker compose up` failed: {compose.returncode}")

    def _choose_limits(self, services: Sequence[str]) -> dict[str, Any]:
        """What compose.yaml says of the models among these services, and this process's environment otherwise."""
        # Compose reads a dollar sign in a file as the start of a variable.
        limits = {name: value.replace("$", "$$") for name, value in read_limits().items()}
        models = {model.name for model in self.catalogue.models if not model.holds_rfc_only}
        return {name: {"environment": limits} if name in models else {} for name in services}

    def _wait_ready(self, models: Sequence[str], timeout: float) -> None:
        inside = [listener for model in models for listener in self.catalogue.inside(model)]
        targets = choose_targets((item.model, item.service, item.address) for item in inside)
        request = json.dumps({"timeout": timeout, "targets": targets})
        probe = _open(
            ["docker", "exec", self._container_name(_SHELL), "python", "-m", "lab.servers.readiness", request]
        )
        waiting = dict.fromkeys(models, "it gave no sign")
        complaints = []
        try:
            for line in _read_lines(probe, time.monotonic() + timeout + STOP_SECONDS):
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
            _end(probe)
        if not waiting:
            return
        self._check_alive(waiting)
        if complaints:
            where = self._container_name(_SHELL)
            raise NotReadyError(f"the readiness probe could not run in {where}: {_last_words(complaints[-1])}")
        model, error = next(iter(waiting.items()))
        raise NotReadyError(_describe_silence(model, error, timeout, self._last_lines(model)))

    def _wait_healthy(self, servers: Sequence[str], timeout: float) -> list[str]:
        """Wait until the health check of each server of the gallery has held.

        Strategy: what compose.yaml says of a server's health is what is run here, so that there is no second word on
        it; but at once and all the time, where Docker would first wait for an interval, which is seconds.

        Returns:
            What is to be said of each that has exited, or had not answered when the time was up.
        """
        deadline = time.monotonic() + timeout
        checks = {name: _read_check(container) for name, container in self._inspect("lab.gallery").items()}
        waiting = dict.fromkeys(servers, "it gave no sign")
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
                time.sleep(_PAUSE)
        for name, complaint in waiting.items():
            failures.append(_describe_silence(name, complaint, timeout, self._last_lines(name, everything=True)))
        return failures

    def _run_checks(self, checks: Mapping[str, Sequence[str]], deadline: float) -> Iterator[tuple[str, str | None]]:
        """Run a command in the container of each of these services, all at once.

        Gives:
            Each service whose command has ended before the deadline, with why it failed, or None if it did not.
        """
        with contextlib.ExitStack() as stack:
            running = {}
            for name, check in checks.items():
                running[name] = _open(["docker", "exec", self._container_name(name), *check])
                stack.callback(_end, running[name])
            for name, each in running.items():
                said = "\n".join(line for line in _read_lines(each, deadline) if line)
                # One that is cut off means nothing: `docker exec` then ends with 0.
                if time.monotonic() < deadline:
                    yield name, (_last_words(said) or "its health check failed") if each.wait() else None

    def _check_alive(self, models: Iterable[str]) -> None:
        states = {state.model: state for state in self.state()}
        for model in models:
            state = states[model]
            if state.state != "running":
                raise NotReadyError(_describe_exit(state))

    def _inspect(self, label: str) -> dict[str, dict[str, Any]]:
        """What Docker says of the containers with a label, by their Compose service."""
        ids = self._list("container", f"label={label}")
        found = json.loads(_docker("inspect", *ids, check=False).stdout or "[]") if ids else []
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
        lines = self._last_lines(model, everything=family == GALLERY)
        if container["State"].get("OOMKilled"):
            lines.append("the kernel ended it at its memory limit (mem_limit in compose.yaml)")
        if container["State"].get("Error"):
            lines.append(container["State"]["Error"])
        return ModelState(model, family, self.name, "exited", container["State"]["ExitCode"], last_lines=tuple(lines))

    def _last_lines(self, model: str, *, everything: bool = False) -> list[str]:
        """The end of a model's log, on stderr; what it says on stdout is the line that describes it.

        Args:
            everything: of what is said on stdout too, as a server of the gallery may.
        """
        said = _docker("logs", "--tail", str(2 * _LAST_LINES), self._container_name(model), check=False)
        return [*(said.stdout.splitlines() if everything else []), *said.stderr.splitlines()][-_LAST_LINES:]

    def _list(self, kind: str, *filters: str) -> list[str]:
        return _list(kind, f"label={_PROJECT}={self.project}", *filters)

    def _remove(self, kind: str, ids: Iterable[str]) -> None:
        _remove(kind, ids)

    def _container_name(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def _of_model(self, model: str, command: str, *options: str) -> str:
        done = _docker(command, *options, self.container_name(model), check=False)
        if done.returncode:
            said = _last_words(done.stderr)
            if "no such" in said.lower() or "not running" in said.lower():
                raise LabError(f"{model} is not running: `lab up {model}`")
            raise LabError(f"{model}: {said}")
        return done.stdout

    def _is_running(self, service: str) -> bool:
        done = _docker("inspect", "--format", "{{.State.Running}}", self._container_name(service), check=False)
        return done.stdout.strip() == "true"

    def _kill_marked(self, mark: str) -> None:
        """End what `run` started and cannot reach any more."""
        script = (
            f"for e in /proc/[0-9]*/environ; do grep -qs {_RUN_MARK}={mark} $e || continue; "
            "p=${e%/environ}; kill -9 ${p#/proc/}; done"
        )
        with contextlib.suppress(LabError):
            _docker("exec", self._container_name(_SHELL), "sh", "-c", script, check=False)


@contextlib.contextmanager
def _removed_without_lab(name: str, environ: Mapping[str, str] | None) -> Iterator[None]:
    """Have a container removed if this process does not live to the end of the block, where `LIFELINE` asks for it.

    The container's own stdin does not do: a client of Docker whose stdin ends before the container runs leaves the
    container's open (seen on Docker Engine 20.10).
    """
    if not environ or LIFELINE not in environ:
        yield
        return
    nowhere = subprocess.DEVNULL
    # In a session of its own: Ctrl-C is for the lab, which removes the container itself.
    with subprocess.Popen(  # noqa: S603 - a script of this file
        ["/bin/sh", "-c", _REAP, name], stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True
    ) as reaper:
        try:
            yield
        finally:
            reaper.kill()


def read_built(output: str) -> dict[str, str | None]:
    """What `docker image inspect` printed of tags and labels, as tag -> digest of what the image was built from.

    Of images that do not exist it prints an empty line.
    """
    built: dict[str, str | None] = {}
    for line in filter(str.strip, output.splitlines()):
        tags, labels = (json.loads(part) for part in re.split(r"(?<=\]) ", line, maxsplit=1))
        built |= dict.fromkeys(tags, (labels or {}).get(_INPUTS))
    return built


class _Changes:
    """What a `docker compose up` has changed, read from its messages: ` Container NAME  Created`."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.is_new = False  # the project had no network, so it was not there at all

    def note(self, line: str) -> None:
        match line.split():
            # From "Creating" on: after an interruption nobody says "Created" any more.
            case ["Container", name, "Creating"]:
                self.created.append(name)
            case ["Network", _, "Creating"]:
                self.is_new = True


def purge(project: str) -> bool:
    """Remove the containers, networks and volumes of a project, and what is noted of it.

    Strategy: again and again until nothing is found. A `docker compose up` whose lab was killed may go on for a
    moment and make more; a network cannot go before its last container, nor a volume.

    Returns:
        Whether there was anything.

    Raises:
        EngineAwayError: no engine answers.
        LabError: it is no lab's but another program's project, and left as it is; or something cannot be removed, with
            what Docker says about it.
    """
    with interrupts.uninterrupted(f"taking {project} down", f"lab --backend docker --project {project} down"):
        return _purge(project)


def _purge(project: str) -> bool:
    label = f"label={_PROJECT}={project}"
    deadline = time.monotonic() + STOP_SECONDS
    _check_is_lab(project)
    found = False
    while True:
        left = False
        said = ""
        for kind in ("container", "network", "volume"):
            if ids := _list(kind, label):
                found = left = True
                said = _remove(kind, ids) or said
        if not left:
            find_mark(project).unlink(missing_ok=True)
            forget(project)
            return found
        # Without a complaint it only takes its time: a dozen containers on a machine with much to do, more than that.
        if said and time.monotonic() > deadline:
            raise LabError(f"project {project} cannot be removed: {said}")


def _check_is_lab(project: str) -> None:
    """Refuse a Compose project that is no lab: of a lab's containers and volumes at least one has a label of the lab's.

    Raises:
        LabError: with the name of something that it holds.
    """
    named = []
    for kind, every, name in (("container", ["--all"], "{{.Names}}"), ("volume", [], "{{.Name}}")):
        form = f"{name} {{{{.Labels}}}}"
        rows = _docker(kind, "ls", *every, "--filter", f"label={_PROJECT}={project}", "--format", form).stdout
        for row in rows.splitlines():
            if _OURS.search(row):
                return
            named.append(f"{kind} {row.split()[0]}")
    if named:
        raise LabError(
            f"the Compose project {project} is no lab ({named[0]} has no label of the lab's), so it is left as it is: "
            "take another --project"
        )


def find_images() -> list[str]:
    """The ids of the images that labs were started from; they belong to no project."""
    images = set(_docker("image", "ls", "--quiet", "--filter", "reference=socketlab/*").stdout.split())
    images |= set(_docker("image", "ls", "--quiet", "--filter", f"label={_INPUTS}").stdout.split())
    return sorted(images)


def remove_images(images: Sequence[str]) -> None:
    """Remove these images.

    Raises:
        LabError: one cannot be removed; what Docker says about it.
    """
    if images:
        said = _docker("image", "rm", "--force", *images, check=False)
        if said.returncode:
            raise LabError(_last_words(said.stderr))


def find_projects() -> list[str]:
    """The names of all projects that hold something with a label of the lab."""
    # `docker volume ls` has no placeholder for one label; all of them come as one text, as in "a=b,c=d".
    projects = set()
    for kind in ("container", "network", "volume"):
        for label in ("lab.model", _PART):
            every = ["--all"] if kind == "container" else []
            done = _docker(kind, "ls", *every, "--filter", f"label={label}", "--format", "{{.Labels}}")
            projects |= set(re.findall(rf"(?:^|,){re.escape(_PROJECT)}=([^,\n]+)", done.stdout, re.MULTILINE))
    return sorted(projects)


def _list(kind: str, *filters: str) -> list[str]:
    options = [word for each in filters for word in ("--filter", each)]
    every = ["--all", "--no-trunc"] if kind == "container" else []
    return _docker(kind, "ls", "--quiet", *every, *options).stdout.split()


def _remove(kind: str, ids: Iterable[str]) -> str:
    """Remove, and say what could not be; a later round tries again."""
    names = list(ids)
    if not names:
        return ""
    options = {"container": ["--force", "--volumes"], "volume": ["--force"]}.get(kind, [])
    return _last_words(_docker(kind, "rm", *options, *names, check=False).stderr)


def _docker(*arguments: str, check: bool = True) -> Completed:
    done = _call(["docker", *arguments], capture=True)
    if done.returncode:
        _check_engine(done.stderr)
    if check and done.returncode:
        raise LabError(f"docker {arguments[0]}: {_last_words(done.stderr)}")
    return done


def _make_environ(*, for_build: bool = False) -> dict[str, str]:
    from lab.engine.client import make_environ
    from lab.engine.errors import EngineError

    try:
        return make_environ(for_build=for_build)
    except EngineError as error:
        raise LabError(str(error)) from None


def _check_engine(said: str) -> None:
    """Raise EngineAwayError if that is why a command of the client has failed."""
    if away := next((line for line in said.splitlines() if _AWAY.search(line)), None):
        from lab.engine.probe import explain_away

        problem = explain_away(_last_words(away))
        raise EngineAwayError(f"{problem.what}: {problem.mend}")


def _call(
    command: Sequence[str],
    *,
    capture: bool = False,
    stdin: str | None = None,
    nothing: int = subprocess.DEVNULL,
    interactive: bool = False,
    environ: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Completed:
    try:
        return subprocess.run(  # noqa: S603 - docker, with arguments made in this file
            list(command),
            input=stdin,
            stdin=nothing if stdin is None and not interactive else None,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE if capture else None,
            env=_make_environ() if environ is None else environ,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            preexec_fn=die_with_lab,
            process_group=0 if interrupts.are_held() else None,
        )
    except FileNotFoundError:
        raise LabError(_NO_DOCKER) from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(command[:4])} ...` took longer than {timeout:g} s and was ended") from None


def _open(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.Popen[bytes]":
    """Start a docker command whose messages are read as they come, with `_read_lines`."""
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode())
        given.seek(0)
        try:
            return subprocess.Popen(  # noqa: S603 - docker, with arguments made in this file
                command,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_make_environ() if environ is None else environ,
                preexec_fn=die_with_lab,
            )
        except FileNotFoundError:
            raise LabError(_NO_DOCKER) from None


def _end(process: "subprocess.Popen[bytes]") -> None:
    """See that a process has ended: by itself if its output has, else it is asked to."""
    if process.stdout is not None and not process.stdout.closed:
        at_end = select.select([process.stdout], [], [], 0)[0] and not os.read(process.stdout.fileno(), 1)
        if not at_end:
            process.terminate()
        process.stdout.close()
    process.wait()


def _read_lines(process: "subprocess.Popen[bytes]", deadline: float) -> Iterator[str | None]:
    """The lines of a process as they come, to their end or the deadline; None whenever nothing has come for a while."""
    assert process.stdout is not None  # noqa: S101 - for mypy: it was opened with a pipe
    rest = b""
    while time.monotonic() < deadline:
        if not select.select([process.stdout], [], [], _LOOK_SECONDS)[0]:
            yield None
            continue
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _digest_of_context(context: Path, dockerfile: str) -> bytes:
    """A digest of a Dockerfile and of everything that it takes from its context, by name and content."""
    digest = hashlib.sha256()
    path = context / dockerfile
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; compose.yaml names it as a Dockerfile") from None
    digest.update(text)
    for source in sorted(_read_sources(text.decode(errors="replace"))):
        for file in _walk(context / source):
            # Of its modes only what git keeps too: a umask says nothing of the content.
            digest.update(f"{file.relative_to(context)}\0{file.stat().st_mode & 0o100}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def _read_sources(dockerfile: str) -> set[str]:
    """What a Dockerfile takes from its context: by COPY, ADD and bind mounts that are not from another stage."""
    sources: set[str] = set()
    for line in dockerfile.replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.upper() in ("COPY", "ADD") and "--from=" not in rest:
            words = json.loads(rest) if rest.startswith("[") else [word for word in rest.split() if word[:2] != "--"]
            sources.update(words[:-1])
        elif instruction.upper() == "RUN":
            for mount in re.findall(r"--mount=(\S*type=bind\S*)", rest):
                options = dict(option.partition("=")[::2] for option in mount.split(","))
                if "from" not in options:
                    sources.add(options.get("source") or options.get("src") or ".")
    return sources


def _walk(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.name not in _IGNORED and not entry.name.endswith((".pyc", ".egg-info")):
                yield from _walk(entry)


def _with_tag(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def _last_words(stderr: str) -> str:
    """The line in which Docker says what was wrong, without its colours and prefixes."""
    lines = [line.strip() for line in stderr.splitlines() if not _NOISE.match(line)]
    return _PREFIX.sub("", lines[-1]) if lines else ""


def _read_check(container: Mapping[str, Any]) -> list[str]:
    """The command that is a container's health check; one that fails, where it has none."""
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
        return f"{state.model} has no container: somebody took it down while it started"
    if not state.last_lines:
        return f"{state.model} exited with code {state.exit_code} instead of answering; its log is empty"
    return "\n  ".join(
        [
            f"{state.model} exited with code {state.exit_code} instead of answering; its log ends with:",
            *state.last_lines,
        ]
    )
