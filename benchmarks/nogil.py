"""What threads gain without the GIL, and what it costs: socketserver_threading and threads_nogil, in turns.

    python -m benchmarks.nogil [ROUNDS]

The two are one code on two builds of the same Python. Both are held to the conformance suite first. Then each load runs
on the one and on the other, 2 s each, and who goes first changes with the round. Prints a line a pair, then a table of
medians, and writes a page with the run of median rate for each load. Exit code 1 if an exchange failed.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich import box
from rich.table import Table

from benchmarks.figures import in_turn
from lab.base.errors import LabError
from lab.base.units import UNKNOWN, show_count, show_us
from lab.experiments.conformance import results
from lab.experiments.conformance.suite import check_models
from lab.experiments.environment import describe_environment
from lab.experiments.records import record_measurement
from lab.experiments.store import Run
from lab.load.measure import measure
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from lab.metrics.verdict import show_failures
from lab.report import demo_page
from lab.report.cells import show_rate
from lab.report.measurement_charts import Comparison
from lab.report.terminal import open_console
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers

PROJECT = f"nogil-{os.getpid()}"
WITH, WITHOUT = "socketserver_threading", "threads_nogil"
SECONDS = 2.0
# What it is for, at one client, at as many as a small machine has cores, and at more; then what it costs the rest.
LOADS = (("closed_burn", 1), ("closed_burn", 2), ("closed_burn", 4), ("closed_ping", 1), ("closed_ping", 16))

CAPTIONS = (
    "closed_burn: each request is a computation in Python, 1000 rounds of SHA-256. Under the GIL the threads of all "
    "clients share one core; without it each client's thread can have one, as far as there are cores, and the load "
    "generator needs a part of them too.",
    "closed_ping: each request is next to no work, so what it takes is the price of having no GIL: reference counts "
    "that several threads may change, a lock for each dictionary and list. Compare the CPU µs/request before the rate.",
    "Both servers are one code on the same version of Python, and both builds are optimised alike: -O3, at link time, "
    "by a profile.",
)


@dataclass(frozen=True)
class Pair:
    """All runs of one load, on the one and on the other."""

    workload: str
    users: int
    runs: dict[str, list[Measurement]]

    @property
    def name(self) -> str:
        """The load and its number of clients."""
        return f"{self.workload}, {self.users} client{'' if self.users == 1 else 's'}"

    def middle(self, model: str) -> Measurement:
        """The run whose rate is the median."""
        runs = sorted(self.runs[model], key=lambda found: found.rate)
        return runs[len(runs) // 2]

    def cpu(self, model: str) -> float | None:
        """Median of the CPU for one request, in µs; None if it is not known of every run."""
        known = [found.server.cpu_us for found in self.runs[model] if found.server.cpu_us is not None]
        return median(known) if len(known) == len(self.runs[model]) else None

    def cores(self, model: str) -> float | None:
        """Median of the cores' worth of CPU that the server used."""
        known = [found.server.cores for found in self.runs[model] if found.server.cores is not None]
        return median(known) if len(known) == len(self.runs[model]) else None

    def span(self, model: str) -> str:
        """The lowest and the highest rate."""
        rates = [found.rate for found in self.runs[model]]
        return f"{show_count(min(rates))} to {show_count(max(rates))}"

    @property
    def gain(self) -> str:
        """How often the rate with the GIL goes into the rate without it; lower bounds give no ranking."""
        before, after = self.middle(WITH), self.middle(WITHOUT)
        if before.verdict.is_lower_bound or not before.rate:
            return UNKNOWN
        return ("≥ " if after.verdict.is_lower_bound else "") + f"x {after.rate / before.rate:.2f}"

    @property
    def price(self) -> str:
        """The same for the CPU of a request."""
        before, after = self.cpu(WITH), self.cpu(WITHOUT)
        return f"x {after / before:.2f}" if before and after else UNKNOWN


def main(rounds: int) -> int:
    """Returns the exit code."""
    catalogue = Catalogue.load()
    backend = Containers(PROJECT, catalogue)
    models = {name: catalogue[name] for name in (WITH, WITHOUT)}
    pairs = [Pair(workload, users, {name: [] for name in models}) for workload, users in LOADS]
    try:
        backend.up(models)
        report = check_models(backend, list(models), progress=False)
        print(f"conformance: {report.summary()}", flush=True)
        if not report.holds:
            raise LabError("what fails the conformance suite is not measured: `lab check` says more")
        for number in range(rounds):
            for pair in pairs:
                for name in in_turn([*models], number):
                    found = measure(
                        backend, models[name], find_preset(pair.workload).change(users=pair.users, duration=SECONDS)
                    )
                    pair.runs[name].append(found)
                each = "  ".join(f"{name} {show_rate(pair.runs[name][-1])}" for name in models)
                print(f"{number + 1}/{rounds}  {pair.name}: {each}", flush=True)
        environment = describe_environment(backend.describe(), versions=pairs[0].runs[WITH][0].load.versions)
        environment |= backend.describe_models(models.values())
    finally:
        backend.down()
    console = open_console()
    console.print(make_table(pairs))
    console.print(f"Medians of {rounds} runs of {SECONDS:g} s. ≥: the server was not the limit.", style="dim")
    console.print(f"{UNKNOWN}: lower bounds, which cannot be ranked, or not known.", style="dim")
    for name, text in environment.items():
        console.print(f"{name}: {text or 'not known'}", style="dim", markup=False)
    path = write(pairs, rounds, environment, report.count(models))
    print(f"as a page: {path}")
    return report_failures(pairs)


def report_failures(pairs: Sequence[Pair]) -> int:
    """Print the failures of each run; return the exit code: 1 if there are any."""
    failed = [found for pair in pairs for runs in pair.runs.values() for found in runs if found.load.failures]
    for found in failed:
        print(f"{found.model}, {found.workload}: failures: {show_failures(found.load.failures)}")
    return 1 if failed else 0


def make_table(pairs: Sequence[Pair]) -> Table:
    """A row for each load and model."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("load", no_wrap=True)
    table.add_column("threads", no_wrap=True)
    for name in ("requests/s", "lowest to highest", "rate", "CPU µs/req", "CPU", "cores used"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for pair in pairs:
        for model in pair.runs:
            is_second = model == WITHOUT
            cores, middle = pair.cores(model), pair.middle(model)
            table.add_row(
                "" if is_second else pair.name,
                "without the GIL" if is_second else "with the GIL",
                show_rate(middle),
                pair.span(model),
                pair.gain if is_second else "",
                show_us(pair.cpu(model)),
                pair.price if is_second else "",
                UNKNOWN if cores is None else f"{cores:.2f}",
                middle.verdict.bound,
                end_section=is_second,
            )
    return table


def write(
    pairs: Sequence[Pair], rounds: int, environment: dict[str, str | None], checks: dict[str, results.ModelResult]
) -> Path:
    """Store the runs with their page; returns where it is."""
    run = Run.create("nogil", {"plan": {"rounds": rounds, "seconds": SECONDS}, "environment": environment})
    for pair in pairs:
        for model, each in pair.runs.items():
            for number, found in enumerate(each, 1):
                run.keep(f"{pair.workload}-{pair.users}/{model}/{number}", record_measurement(found))
    run.finish({})
    # On the page a row is a model under one load.
    rows = [
        replace(pair.middle(model).rename(f"{model}: {pair.name}"), summary=f"lowest to highest: {pair.span(model)}")
        for pair in pairs
        for model in pair.runs
    ]
    ratios = [f"{pair.name}, without the GIL: rate {pair.gain}, CPU of a request {pair.price}." for pair in pairs]
    text = demo_page.render(
        Comparison.of(rows),
        title="Threads with the GIL, and without",
        lead=f"For each load the run of median rate out of {rounds}, in turns, {environment['date']}.",
        captions=[*ratios, *CAPTIONS],
        checks={row.model: checks[row.model.split(":")[0]] for row in rows},
        missing={},
        extra=(),
        environment=environment,
    )
    return run.write_page(text)


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
    except LabError as error:
        sys.exit(f"nogil: {error}")
