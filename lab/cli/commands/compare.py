"""`lab compare A B`: what has changed between two runs, or since the baseline, with an exit code for CI."""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lab.base.paths import RESULTS
from lab.cli.commands.bench import NAME
from lab.experiments.bench.baseline import BASELINE_FILE, THRESHOLD, Baseline, find_deviations
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import AGAIN
from lab.experiments.store import Run
from lab.metrics.estimates import Change
from lab.metrics.estimates import compare as compare_estimates
from lab.report.bench_text import show_estimate
from lab.report.figures import show_count, show_us

# What is held: whether more of it is worse, and how it is shown.
_HELD = {
    "rate": (False, "requests/s", show_count),
    "cpu_us": (True, "CPU µs/request", show_us),
    "p99_us": (True, "p99 µs", show_us),
}

# Of a run against a run; of a baseline, see there.
_THRESHOLD = 0.1
_BASELINE = "baseline"

# What has to be the same for two runs to be comparable at all.
_SAME = ("processor", "system", "backend", "engine", "servers", "cores", "governor", "libc", "allocator")


class Share(click.ParamType[float]):
    """`10%`, or `0.1`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Called by click."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a share such as 10%", param, ctx)
        return float(match[1]) / (100 if match[2] else 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of a cell that is not what it was.

    Args:
        cell: work, model and way.
        figure: of `lab.experiments.bench.findings.FIGURES`.
        change: what it was and is; None if it is no longer measured.
        is_regression: whether it is worse by more than the threshold.
        text: the line for people.
    """

    cell: tuple[str, str, str]
    figure: str
    change: Change | None
    is_regression: bool
    text: str


def find_differences(before: Findings, after: Findings, threshold: float) -> Iterator[Difference]:
    """What has changed beyond the noise of both runs, by cell.

    Args:
        threshold: how much worse a figure may become, as a part of what it was.
    """
    for cell, row in before.rows.items():
        if cell[1].startswith(AGAIN) or not row.found:
            continue
        now = after.rows.get(cell)
        if now is None or not now.found:
            if cell[0] in after.plan.works and cell[1] in after.plan.models and cell[2] in after.plan.ways:
                reason = now.reason if now else after.unsound.get(cell[1], "the run was interrupted before it")
                yield Difference(cell, "rate", None, True, f"{_name(cell)}: no longer measured: {reason}")
            continue
        if now.failed and not row.failed:
            why = ", ".join(now.failed)
            yield Difference(
                cell, "failures", None, True, f"{_name(cell)}: {now.failed.total()} failures, none before: {why}"
            )
        for figure, (more_is_worse, name, show) in _HELD.items():
            noise = max(before.noise(figure) or 0.0, after.noise(figure) or 0.0)
            one, other = row.read(figure), now.read(figure)
            change = compare_estimates(one, other, noise=noise) if one and other else None
            if change is None or not change.is_beyond_noise:
                continue
            worse = change.ratio - 1 if more_is_worse else 1 - change.ratio
            is_regression = worse > threshold
            was, now_is = show_estimate(one, show), show_estimate(other, show)
            text = f"{_name(cell)}: {name} {was} -> {now_is} ({change.ratio - 1:+.0%})"
            yield Difference(cell, figure, change, is_regression, text + (", a regression" if is_regression else ""))


def find_other_conditions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What else has changed: a difference in the figures may be one of the machine."""
    for name in _SAME:
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name) or 'not known'} -> {after.get(name) or 'not known'}"


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--threshold", type=Share(), help=f"How much worse a figure may become.  [10%; of a baseline {THRESHOLD:.0%}]"
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, hidden=True)
def compare(before: str, after: str, threshold: float | None, out: Path) -> None:
    """Say what changed from run A to run B beyond noise; exit with 1 on a regression past the threshold.

    A run is a folder, the time that names it, or `latest`. A can also be `baseline`, which is the committed one, or a
    file made by `lab bench --show RUN --export baseline`: then what each model costs beside one of them is compared,
    which can be done on any machine.
    """
    if before == _BASELINE or before.endswith(".json"):
        file = BASELINE_FILE if before == _BASELINE else Path(before)
        sys.exit(
            hold(
                Baseline.load(file),
                read_findings(Run.find(after, NAME, root=out)),
                THRESHOLD if threshold is None else threshold,
            )
        )
    threshold = _THRESHOLD if threshold is None else threshold
    first, second = (read_findings(Run.find(text, NAME, root=out)) for text in (before, after))
    for line in find_other_conditions(first.run.facts["environment"], second.run.facts["environment"]):
        click.echo(f"not the same conditions: {line}")
    differences = list(find_differences(first, second, threshold))
    for item in differences:
        click.echo(item.text)
    regressions = sum(item.is_regression for item in differences)
    common = sum(1 for cell in first.rows if cell in second.rows and not cell[1].startswith(AGAIN))
    click.echo(
        f"{common} cells in both runs, {len(differences)} figures changed beyond noise, "
        f"{regressions} worse by more than {threshold:.0%}"
    )
    sys.exit(1 if regressions or not common else 0)


def hold(baseline: Baseline, findings: Findings, threshold: float) -> int:
    """Print what a run says otherwise than a baseline; returns the exit code.

    Raises:
        LabError: the two have nothing in common.
    """
    made = baseline.made
    click.echo(f"the baseline is of {made.get('date')}, commit {made.get('commit')}, {made.get('processor')}")
    found = list(find_deviations(baseline, findings, threshold))
    for item in found:
        click.echo(item.text)
    regressions = sum(item.is_regression for item in found)
    click.echo(
        f"{len(baseline.ratios)} costs beside that of {baseline.reference}: {len(found)} changed by more than "
        f"{threshold:.0%}, beyond noise, {regressions} of them for the worse"
    )
    return 1 if regressions else 0


def _name(cell: tuple[str, str, str]) -> str:
    work, model, way = cell
    return f"{model}, {work}, {way}"
