"""Exhaust descriptors or memory. A model should log it, wait, and continue when the resource is available again."""

import json

from lab.base.errors import LabError
from lab.experiments.faults.fault import Fault, Injection
from lab.experiments.faults.process_scripts import LIMIT, UNLIMIT
from lab.servers.backend import Backend

_MEBI = 1024 * 1024
_MORE_DESCRIPTORS = 1  # the first new client is accepted, the next is not
_MORE_MEMORY = 4 * _MEBI


def _limit(backend: Backend, model: str, which: str, more: int) -> Injection:
    before = json.loads(backend.faults.run_beside(model, LIMIT, [which, "-1"]))
    if not before:
        raise LabError(f"{model} has no running process to limit")
    soft = str(before[0][1])

    def inject() -> None:
        backend.faults.run_beside(model, LIMIT, [which, str(more)])

    def heal() -> None:
        backend.faults.run_beside(model, UNLIMIT, [which, soft])

    return Injection(inject, heal, f"`lab down`, `lab up {model}`", f"{model} has a low {which}")


def _prepare_descriptors(backend: Backend, model: str) -> Injection:
    return _limit(backend, model, "RLIMIT_NOFILE", _MORE_DESCRIPTORS)


def _prepare_memory(backend: Backend, model: str) -> Injection:
    return _limit(backend, model, "RLIMIT_AS", _MORE_MEMORY)


DESCRIPTORS = Fault("descriptors", "one free descriptor is left", _prepare_descriptors, hold=0.5)
MEMORY = Fault("memory", "4 MiB of address space are left to each process", _prepare_memory, hold=0.5)
