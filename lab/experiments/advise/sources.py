"""Collect what `lab advise` knows of each model: the last run of `lab bench`, else docs/data/measured.json."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.experiments.advise.model import Known
from lab.experiments.bench.findings import Findings, RowKey, read_findings
from lab.experiments.bench.plan import CLOSED, MODES
from lab.experiments.published import Measured
from lab.experiments.store import Run, StoreError
from lab.experiments.theory import Server
from lab.servers.catalogue import Catalogue, Model

# Workloads whose only cost is that of the request itself, the best one first.
_PLAIN = ("session", "ping")
# The mode in which requests hardly wait for each other.
_HALF_LOAD = "open-50"
_MEASURED_PLAIN = "closed_session"

# Largest level that a sweep needs to show the memory of a connection above the noise.
_MIN_CONNECTIONS = 200

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of the figures.

    Args:
        findings: Findings of a run; None if there is none.
        measured: The content of docs/data/measured.json.
        notes: Sentences on the sources of the figures, and on what is missing.
    """

    findings: Findings | None
    measured: Measured
    notes: tuple[str, ...]

    @property
    def machine_cores(self) -> int:
        return len(os.sched_getaffinity(0))

    def read(self, catalogue: Catalogue, model: Model, share: float = 0.99) -> Known:
        """Return what is known of a model.

        Args:
            share: The percentile of the condition.
        """
        server = Server.of(catalogue, model)
        limit = read_size(catalogue.definitions[model.name])
        known = _read_measured(self.measured, model.name)
        known |= _read_findings(self.findings, model.name, share) if self.findings else {}
        if "overlap" in model.limits:
            known.pop("ping_time", None)  # its clients wait for each other at every rate
        return Known(model.name, server, memory_limit=limit, **known)  # type: ignore[arg-type]  # by their names


def read_sources(catalogue: Catalogue, folder: Path | None, root: Path) -> Sources:
    """Read the sources.

    Args:
        folder: Folder of a run; None for the last one under `root`, if there is one.

    Raises:
        LabError: A source exists, but cannot be read.
    """
    measured = Measured.load()
    environment = measured.environment
    committed = f"docs/data/measured.json ({environment.get('date')}, {environment.get('processor')})"
    try:
        run = Run.open(folder.resolve()) if folder else Run.find(None, "bench", root=root)
    except StoreError as error:
        if folder or (root / "bench").is_dir():
            raise
        return Sources(
            None, measured, (f"No run of `lab bench` ({error}): costs and memory are those of {committed}.",)
        )
    findings = read_findings(run)
    facts = findings.run.facts["environment"]
    notes = [f"From the run {run.started} ({facts.get('processor')}, {facts.get('cores')}); else from {committed}."]
    if missing := [model.name for model in catalogue.select() if model.name not in findings.plan.models]:
        notes.append(f"Not in that run: {', '.join(missing)}.")
    if not set(_PLAIN) & set(findings.plan.workloads):
        notes.append(f"It has none of {', '.join(_PLAIN)}, so the cost of a request is not from that run.")
    return Sources(findings, measured, tuple(notes))


def _read_measured(measured: Measured, model: str) -> dict[str, object]:
    found: dict[str, object] = {}
    if summary := measured.models.get(model, {}).get(_MEASURED_PLAIN):
        found |= {
            "costs": () if summary.cpu_us is None else ((summary.rate, summary.cpu_us / 1e6),),
            "base_bytes": summary.memory_bytes,
            "most_connections": summary.users,
            "most_rate": summary.rate,
            "is_lower_bound": summary.is_lower_bound,
        }
    idle = measured.idle.get(model)
    if idle and idle.bytes_per_connection is not None:
        found |= {"connection_bytes": idle.bytes_per_connection, "most_connections": idle.connections}
    return found


def _read_findings(findings: Findings, model: str, share: float) -> dict[str, object]:
    """Return the facts of a run. Missing ones are left out, so that those of another source stay."""
    found: dict[str, object] = {}
    keys = (RowKey(name, model, CLOSED) for name in _PLAIN)
    row = next((findings.rows[key] for key in keys if key in findings.rows), None)
    if row is None:
        return found
    workload = row.workload
    if failing := findings.failing(workload, model):
        found["failing"] = failing
    modes = [item for mode in MODES if (item := findings.rows.get(RowKey(workload, model, mode)))]
    read = [(item.read("rate"), item.read("cpu_us")) for item in modes]
    if costs := sorted((rate.middle, cost.middle / 1e6) for rate, cost in read if rate and cost):
        found["costs"] = tuple(costs)
    if half := findings.rows.get(RowKey(workload, model, _HALF_LOAD)):
        found["ping_time"] = half.percentile(share)
    if rate := row.read("rate"):
        found |= {"most_rate": rate.middle, "is_lower_bound": rate.is_lower_bound}
    if row.memory_bytes is not None:
        found["base_bytes"] = row.memory_bytes
    for name in findings.plan.workloads:
        most = max(findings.sweeps.get((name, model), {}), default=0)
        each = findings.connection_bytes(name, model)
        if most >= _MIN_CONNECTIONS and each:
            found |= {"connection_bytes": each, "most_connections": most}
    return found


def read_size(definition: Mapping[str, object]) -> int | None:
    """Return the memory limit of a container in compose.yaml in bytes; None if there is none."""
    match = re.fullmatch(r"(\d+)([kmg]?)b?", str(definition.get("mem_limit", "")).lower())
    return int(match[1]) * _UNITS[match[2]] if match else None
