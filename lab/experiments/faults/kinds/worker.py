"""SIGKILL to one worker of several: its clients lose their connections, and nobody else may notice."""

from lab.experiments.faults.fault import Fault, Injection, NoSuchPartError
from lab.experiments.faults.process_scripts import KILL_WORKER
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    def inject() -> None:
        # Looked for when it is done: the children of a forking server live as long as their clients.
        if backend.run_beside(model, KILL_WORKER, ["kill"]).strip() == "0":
            raise NoSuchPartError(f"{model} has no worker processes")

    # Its parent mends it, or has nothing to mend: that is what is tried here.
    return Injection(inject, lambda: None, f"`lab up {model}`", f"{model} lacks a worker")


WORKER = Fault("worker", "SIGKILL to one worker process: the others go on", _prepare, hold=0.3, keeps=False)
