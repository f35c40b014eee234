"""Faults of one model's container: signals, pauses, limits and its network."""

import json
from collections.abc import Sequence

from lab.base.errors import LabError
from lab.servers.backend import ContainerControls
from lab.servers.docker.cleanup import PART_LABEL, PROJECT_LABEL
from lab.servers.docker.command import last_words, run_docker
from lab.servers.docker.compose import SHELL, Compose
from lab.servers.docker.model_container import run_on_model

_CPU_PERIOD = 100_000  # microseconds; the default of the kernel and of Docker


class ContainerFaults:
    """See `lab.servers.backend.FaultControls` and `ContainerControls`."""

    recovery_seconds = 2.0

    def __init__(self, compose: Compose) -> None:
        self._compose = compose

    @property
    def container(self) -> ContainerControls:
        return self

    def kill(self, model: str, number: int) -> None:
        self._run(model, "kill", "--signal", str(int(number)))

    def pause(self, model: str) -> None:
        self._run(model, "pause")

    def unpause(self, model: str) -> None:
        if self._run(model, "inspect", "--format", "{{.State.Paused}}").strip() == "true":
            self._run(model, "unpause")

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        name = self._compose.name_model(model)
        done = run_docker("exec", name, "python3", "-c", script, "1", *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {last_words(done.stderr or done.stdout)}")
        return done.stdout

    def run_in_network(self, model: str, arguments: Sequence[str]) -> str:
        # With the label of its project, so that `down` finds it.
        labels = [f"--label={PROJECT_LABEL}={self._compose.project}", f"--label={PART_LABEL}=instrument"]
        rights = [
            "--user=0",
            "--read-only",
            "--cap-drop=ALL",
            "--cap-add=NET_ADMIN",
            "--security-opt=no-new-privileges",
        ]
        # The image of the running shell: its tag may belong to a newer build.
        image = run_docker("inspect", "--format", "{{.Image}}", self._compose.name_container(SHELL)).stdout.strip()
        network = f"--network=container:{self._compose.name_model(model)}"
        done = run_docker("run", "--rm", *labels, *rights, network, image, *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {' '.join((done.stderr or done.stdout).split())}")
        return done.stdout

    def disconnect(self, model: str) -> None:
        run_docker("network", "disconnect", self._compose.network, self._compose.name_container(model))

    def connect(self, model: str) -> None:
        connected = json.loads(self._run(model, "inspect", "--format", "{{json .NetworkSettings.Networks}}"))
        if self._compose.network not in connected:
            run_docker(
                "network", "connect", "--alias", model, self._compose.network, self._compose.name_container(model)
            )

    def limit_cpu(self, model: str, cores: float | None) -> None:
        quota = -1 if cores is None else int(cores * _CPU_PERIOD)
        self._run(model, "update", "--cpu-period", str(_CPU_PERIOD), "--cpu-quota", str(quota))

    def memory_limit(self, model: str) -> tuple[int, int]:
        form = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"
        memory, swap = map(int, self._run(model, "inspect", "--format", form).split())
        return memory, swap

    def limit_memory(self, model: str, memory: int, swap: int) -> None:
        self._run(model, "update", "--memory", str(memory), "--memory-swap", str(swap))

    def _run(self, model: str, command: str, *options: str) -> str:
        return run_on_model(self._compose, model, command, *options)
