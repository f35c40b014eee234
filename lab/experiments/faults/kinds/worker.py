"""Kill one of several worker processes: its clients lose their connections, all others must not notice."""

from lab.experiments.faults.fault import Fault, Injection, NotApplicableError
from lab.experiments.faults.process_scripts import KILL_WORKER
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    def inject() -> None:
        # The worker is chosen at the injection: the children of a forking server live only as long as their clients.
        if backend.faults.run_beside(model, KILL_WORKER, ["kill"]).strip() == "0":
            raise NotApplicableError(f"{model} has no worker processes")

    # Nothing to heal: the parent process must replace the worker, or continue without it.
    return Injection(inject, lambda: None, f"`lab up {model}`", f"{model} lacks a worker")


WORKER = Fault(
    "worker", "SIGKILL to one worker process; the others continue", _prepare, hold=0.3, keeps_connections=False
)
