"""Run Docker commands on the container of one model."""

from collections.abc import Sequence

from lab.base.errors import LabError
from lab.base.units import encode_cores, show_cores
from lab.servers.docker.command import last_words, run_docker
from lab.servers.docker.compose import Compose


def run_on_model(compose: Compose, model: str, command: str, *options: str) -> str:
    """Run a Docker command on a model's container; return its output.

    Raises:
        LabError: the model does not run, or the command failed; with Docker's reason.
    """
    done = run_docker(command, *options, compose.name_model(model), check=False)
    if done.returncode:
        reason = last_words(done.stderr)
        if "no such" in reason.lower() or "not running" in reason.lower():
            raise LabError(f"{model} is not running: `lab up {model}`")
        raise LabError(f"{model}: {reason}")
    return done.stdout


def pin_container(container: str, cores: Sequence[int]) -> None:
    """Pin a container to cores.

    Raises:
        LabError: it could not be pinned.
    """
    import docker
    import docker.errors
    import requests

    try:
        client = docker.from_env()
        try:
            client.containers.get(container).update(cpuset_cpus=encode_cores(cores))
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise LabError(f"a container cannot be pinned to {show_cores(cores)}: {error}") from None
