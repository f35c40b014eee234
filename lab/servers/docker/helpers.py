"""Programs of the lab in containers: in the one of the shell, or each in its own."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Unpack
from uuid import uuid4

from lab.base.environ import ENV_LIFELINE
from lab.base.errors import LabError
from lab.servers.backend import Completed, RunOptions
from lab.servers.children import close_child, open_child, open_lifeline
from lab.servers.docker.cleanup import remove
from lab.servers.docker.command import NO_DOCKER, call, make_environ, run_docker
from lab.servers.docker.compose import SHELL, Compose
from lab.servers.docker.images import build_images
from lab.servers.helper import Helper

_ENV_RUN = "LAB_RUN"
# Between two looks for a container; each starts a process.
_POLL_SECONDS = 0.1

# Removes a container at the end of its stdin, which is the end of the lab. It tries again, since the container may not
# exist yet.
_REMOVE_CONTAINER = """
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10; do docker rm --force "$0"; sleep 1; done
"""


class ContainerHelpers:
    """See `lab.servers.backend.Helpers`."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self.shell = compose.name_container(SHELL)

    def run(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        interactive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Completed:
        # The end of `docker exec` does not end the command in the container. This variable finds its processes there.
        mark = uuid4().hex
        command = ["docker", "exec", "--env", f"{_ENV_RUN}={mark}"]
        if interactive:
            command += ["--interactive", "--tty"] if sys.stdin.isatty() else ["--interactive"]
        elif options.get("stdin") is not None:
            command += ["--interactive"]
        for name, value in (environ or {}).items():
            command += ["--env", f"{name}={value}"]
        command += [self.shell, *arguments]
        try:
            done = call(command, interactive=interactive, **options)
        except BaseException:
            self._kill_marked(mark)
            raise
        # `docker exec` has no exit code of its own for "no such container": it is 1 as well.
        if done.returncode in (1, 125, 126, 127) and not self._is_up():
            raise LabError(f"the lab {self._compose.project} is not up: `lab up` starts it")
        return done

    @contextlib.contextmanager
    def start(self, name: str, arguments: Sequence[str]) -> Iterator[Helper]:
        command = ["docker", "exec", "--interactive", self.shell, *arguments]
        with tempfile.TemporaryFile(prefix="socketlab-") as log:
            process = _open_docker(command, environ=make_environ(), output=log)
            try:
                yield Helper(name, process, self.shell, log)
            finally:
                close_child(process)

    def run_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        build_images(self._compose, [service])
        name = self._compose.name_run(service)
        command = self._compose.run_command(name, service, arguments, environ or {}, publish=False, remove=True)
        try:
            with open_lifeline(environ) as empty, _removed_without_lab(name, environ):
                environ = self._compose.environ() | dict(environ or {})
                return call(command, empty_stdin=empty, environ=environ, **options)
        except BaseException:
            remove("container", [name])
            raise

    @contextlib.contextmanager
    def start_service(
        self,
        name: str,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        publish: bool = False,
    ) -> Iterator[Helper]:
        build_images(self._compose, [service])
        host = self._compose.name_run(service)
        own = dict(environ or {})
        # Compose does not remove the container: if two programs remove one at the same time, its network can keep an
        # endpoint that nothing can remove any more (seen on Docker Engine 20.10).
        command = self._compose.run_command(host, service, arguments, own, publish=publish, remove=False)
        with tempfile.TemporaryFile(prefix="socketlab-") as log:
            process = _open_docker(
                command, environ=self._compose.environ() | own, output=log, has_lifeline=ENV_LIFELINE in own
            )
            try:
                with _removed_without_lab(host, environ):
                    # Each `compose run` creates the project's networks that are missing. Two at the same time create
                    # two of the same name, and Docker then cannot choose. So the next one may start once this container
                    # exists.
                    while process.poll() is None and run_docker("container", "inspect", host, check=False).returncode:
                        time.sleep(_POLL_SECONDS)
                    # Docker's DNS resolves the name of a container.
                    yield Helper(name, process, host, log)
            finally:
                remove("container", [host])
                close_child(process)

    def choose_bind(self, port: int, *, local: int | None = None) -> tuple[str, int]:
        # compose.yaml publishes a port of a container on 127.0.0.1 alone.
        return "*", port

    def find_shell(self) -> str:
        return "bash"

    def _is_up(self) -> bool:
        done = run_docker("inspect", "--format", "{{.State.Running}}", self.shell, check=False)
        return done.stdout.strip() == "true"

    def _kill_marked(self, mark: str) -> None:
        """End the processes in the container that `run` has started."""
        script = (
            f"for e in /proc/[0-9]*/environ; do grep -qs {_ENV_RUN}={mark} $e || continue; "
            "p=${e%/environ}; kill -9 ${p#/proc/}; done"
        )
        with contextlib.suppress(LabError):
            run_docker("exec", self.shell, "sh", "-c", script, check=False)


def _open_docker(
    command: Sequence[str], *, environ: Mapping[str, str], output: IO[bytes], has_lifeline: bool = False
) -> "subprocess.Popen[bytes]":
    try:
        return open_child(command, environ=environ, output=output, has_lifeline=has_lifeline)
    except FileNotFoundError:
        raise LabError(NO_DOCKER) from None


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
