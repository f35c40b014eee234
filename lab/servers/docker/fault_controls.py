"""Faults of one model's container: signals, pauses, limits and its network."""

import json
from collections.abc import Sequence

from lab.base.errors import LabError
from lab.servers.catalogue import Catalogue
from lab.servers.docker.cleanup import PART_LABEL, PROJECT_LABEL
from lab.servers.docker.command import last_words, run_docker

SHELL = "shell"
_CPU_PERIOD = 100_000  # microseconds; the default of the kernel and of Docker


class FaultControls:
    """See `lab.servers.backend.FaultControls`."""

    def __init__(self, project: str, catalogue: Catalogue) -> None:
        self.project = project
        self.catalogue = catalogue

    def container_name(self, model: str) -> str:
        """Return the name of a model's container, which need not exist."""
        return self._name_container(self.catalogue[model].name)

    def kill(self, model: str, signal: int) -> None:
        self._of_model(model, "kill", "--signal", str(int(signal)))

    def pause(self, model: str) -> None:
        self._of_model(model, "pause")

    def unpause(self, model: str) -> None:
        if self._of_model(model, "inspect", "--format", "{{.State.Paused}}").strip() == "true":
            self._of_model(model, "unpause")

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        name = self.container_name(model)
        done = run_docker("exec", name, "python3", "-c", script, "1", *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {last_words(done.stderr or done.stdout)}")
        return done.stdout

    def run_in_network(self, model: str, arguments: Sequence[str]) -> str:
        # With the label of its project, so that `down` finds it.
        labels = [f"--label={PROJECT_LABEL}={self.project}", f"--label={PART_LABEL}=instrument"]
        rights = [
            "--user=0",
            "--read-only",
            "--cap-drop=ALL",
            "--cap-add=NET_ADMIN",
            "--security-opt=no-new-privileges",
        ]
        # The image of the running shell: its tag may belong to a newer build.
        image = run_docker("inspect", "--format", "{{.Image}}", self._name_container(SHELL)).stdout.strip()
        network = f"--network=container:{self.container_name(model)}"
        done = run_docker("run", "--rm", *labels, *rights, network, image, *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {' '.join((done.stderr or done.stdout).split())}")
        return done.stdout

    def disconnect(self, model: str) -> None:
        run_docker("network", "disconnect", self._network, self._name_container(model))

    def connect(self, model: str) -> None:
        connected = json.loads(self._of_model(model, "inspect", "--format", "{{json .NetworkSettings.Networks}}"))
        if self._network not in connected:
            run_docker("network", "connect", "--alias", model, self._network, self._name_container(model))

    def limit_cpu(self, model: str, cores: float | None) -> None:
        quota = -1 if cores is None else int(cores * _CPU_PERIOD)
        self._of_model(model, "update", "--cpu-period", str(_CPU_PERIOD), "--cpu-quota", str(quota))

    def memory_limit(self, model: str) -> tuple[int, int]:
        form = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"
        memory, swap = map(int, self._of_model(model, "inspect", "--format", form).split())
        return memory, swap

    def limit_memory(self, model: str, memory: int, swap: int) -> None:
        self._of_model(model, "update", "--memory", str(memory), "--memory-swap", str(swap))

    @property
    def _network(self) -> str:
        return f"{self.project}_lab"

    def _name_container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def _of_model(self, model: str, command: str, *options: str) -> str:
        """Run a Docker command on a model's container; return its output."""
        done = run_docker(command, *options, self.container_name(model), check=False)
        if done.returncode:
            reason = last_words(done.stderr)
            if "no such" in reason.lower() or "not running" in reason.lower():
                raise LabError(f"{model} is not running: `lab up {model}`")
            raise LabError(f"{model}: {reason}")
        return done.stdout
