"""`lab compare A B`: what has changed between two runs, or since the baseline, with an exit code for CI."""

import re
import sys
from pathlib import Path
from typing import Any

import click

from lab.base.paths import RESULTS
from lab.experiments.bench.baseline import BASELINE_FILE, THRESHOLD, Baseline, find_deviations
from lab.experiments.bench.comparison import find_differences, find_other_conditions
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import NAME, is_control
from lab.experiments.store import Run

# Of a run against a run; of a baseline, see there.
_THRESHOLD = 0.1
_BASELINE = "baseline"


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
    common = sum(1 for case in first.rows if case in second.rows and not is_control(case[1]))
    click.echo(
        f"{common} cases in both runs, {len(differences)} figures changed beyond noise, "
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
