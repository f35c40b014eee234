"""Compare two runs of the benchmark, or a run and the baseline."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from lab.cli.context import DID_NOT_HOLD, HELD, say
from lab.cli.params import Share, out_option
from lab.experiments.bench.baseline import BASELINE_FILE, THRESHOLD, Baseline, find_deviations
from lab.experiments.bench.comparison import find_differences, find_other_conditions
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import NAME, is_control
from lab.experiments.store import Run, tolerated
from lab.report import compare_page
from lab.report.bench_text import make_environment
from lab.report.charts.chart import Chart

# Between two runs.
_THRESHOLD = 0.1
_BASELINE = "baseline"


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--threshold", type=Share(), help=f"Allowed regression.  [default: {_THRESHOLD:.0%}; {THRESHOLD:.0%} of a baseline]"
)
@out_option
def compare(before: str, after: str, threshold: float | None, out: Path) -> None:
    """Report the differences between runs A and B that are larger than the noise.

    A run is a folder, the time in its name, or `latest`.

    A can also be `baseline` (the committed one) or a file from `lab bench --show RUN --export baseline`. The command
    then compares the cost of each model relative to a reference model, so B may be from another machine.

    The page with all changes is compare-A.html in the folder of B.

    Exit code 1: a figure is worse by more than the threshold.
    """
    if before == _BASELINE or before.endswith(".json"):
        baseline = Baseline.load(BASELINE_FILE if before == _BASELINE else Path(before))
        findings = read_findings(Run.find(after, NAME, root=out))
        sys.exit(compare_with_baseline(baseline, findings, THRESHOLD if threshold is None else threshold))
    threshold = _THRESHOLD if threshold is None else threshold
    first, second = (read_findings(Run.find(text, NAME, root=out)) for text in (before, after))
    texts = [
        f"not the same conditions: {line}"
        for line in find_other_conditions(first.run.facts["environment"], second.run.facts["environment"])
    ]
    differences = list(find_differences(first, second, threshold))
    regressions = sum(item.is_regression for item in differences)
    common = sum(1 for key in first.rows if key in second.rows and not is_control(key.model))
    texts += [item.text for item in differences]
    texts.append(
        f"{common} cases in both runs, {len(differences)} figures changed beyond noise, "
        f"{regressions} worse by more than {threshold:.0%}"
    )
    charts = compare_page.draw_changes(first, second)
    report(first.run.started, second.run, charts, texts, make_environment(second))
    sys.exit(DID_NOT_HOLD if regressions or not common else HELD)


def compare_with_baseline(baseline: Baseline, findings: Findings, threshold: float) -> int:
    """Print how a run differs from a baseline, and return the exit code.

    Raises:
        LabError: the two have nothing in common.
    """
    made = baseline.made
    click.echo(f"baseline: {made.get('date')}, commit {made.get('commit')}, {made.get('processor')}")
    found = list(find_deviations(baseline, findings, threshold))
    regressions = sum(item.is_regression for item in found)
    texts = [item.text for item in found]
    texts.append(
        f"{len(baseline.ratios)} costs relative to {baseline.reference}: {len(found)} changed by more than "
        f"{threshold:.0%}, beyond noise, {regressions} of them for the worse"
    )
    charts = compare_page.draw_baseline(baseline, findings)
    report(_BASELINE, findings.run, charts, texts, {name: str(value) for name, value in made.items()})
    return DID_NOT_HOLD if regressions else HELD


def report(before: str, after: Run, charts: Sequence[Chart], texts: Sequence[str], facts: Mapping[str, str]) -> None:
    """Write the page into the folder of the later run, and print the result, which is the last line."""
    name = f"compare-{before}.html"
    with tolerated(say):
        page = after.write_file(name, compare_page.render(before, after.started, charts, texts, facts))
        click.echo(f"the page: {page}", err=True)
    for text in texts:
        click.echo(text)
