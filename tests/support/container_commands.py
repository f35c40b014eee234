"""Commands in containers."""

import subprocess

from docker.models.containers import Container


def execute(container: Container, *command: str, user: str = "") -> tuple[int, bytes]:
    """Run a command, and return its exit code and its output, that of stderr included.

    By the client: docker-py 7 loses what arrives together with the head of the engine's answer. It reads that into a
    buffer, and takes the output from the socket below it.
    """
    options = [f"--user={user}"] if user else []
    done = subprocess.run(
        ["docker", "exec", *options, str(container.id), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout
