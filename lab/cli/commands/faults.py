"""`lab faults`: the scorecard, and a fault on what runs already."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.paths import RESULTS
from lab.cli.context import COULD_NOT_RUN, DID_NOT_HOLD, HELD, Lab
from lab.cli.params import SECONDS
from lab.cli.tables import show_table
from lab.experiments.environment import describe_environment
from lab.experiments.faults.fault import CannotApplyError, EndedError
from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import show
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.remote_requests import inject_together
from lab.experiments.faults.scorecard import apply_all
from lab.experiments.faults.under_load import UnderLoad, apply_under_load
from lab.experiments.store import Run, check_writable, tolerated, write_new
from lab.load.presets import PRESETS
from lab.report import faults_page
from lab.report.faults_text import (
    DETAILS,
    Outcome,
    key_of,
    name_of,
    render_markdown,
    show_cell,
    show_details,
    show_load,
)

NAME = "faults"


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--fault", "faults", multiple=True, type=click.Choice(list(FAULTS)), help="By default all; repeatable.")
@click.option(
    "--seed", default=1, show_default=True, help="The same seed: the same requests, broken at the same moment."
)
@click.option("--twin", is_flag=True, help="All but the step that breaks: what fails here is no finding.")
@click.option(
    "--now", type=click.Choice(list(FAULTS)), help="Only break models that run, for --for; no account is kept."
)
@click.option(
    "--for", "seconds", type=SECONDS, default="5s", show_default=True, help="How long, of --now and --scenario."
)
@click.option(
    "--scenario", type=click.Choice(list(PRESETS)), metavar="NAME", help="Load of `lab load`, broken in its middle."
)
@click.option("--json", "as_json", is_flag=True, help="Each score with its account, for a script.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the same to a file.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Where all results are.",
    hidden=True,
)
@click.pass_obj
def faults(
    lab: Lab,
    models: tuple[str, ...],
    faults: tuple[str, ...],
    seed: int,
    twin: bool,
    now: str | None,
    seconds: float,
    scenario: str | None,
    as_json: bool,
    out: Path | None,
    results: Path,
) -> None:
    """Break models while they are under load, account for every request, and mend them.

    Each score is held, degraded (with figures), failed, or unknown, where the fault cannot be had here. A model that is
    said to fail (lab.limit in the catalogue) must do so. Exit code 1: something is not as it should be; 2: something is
    unknown, or nothing was tried on a model that was named.

    Models that run are used as they are, and run again afterwards; if none runs, those asked for are started, and taken
    down.

    --scenario puts one of Locust's scenarios on the models, breaks them in its middle, and shows what another client's
    PING took before, while and after: time to detect, and time to recover.

    Both write a report, results/faults/<UTC time>/index.html, and beside it each account as soon as it is there.

    --now breaks models that run, for a while, whoever uses them. Where that is Locust's web UI, its tab "Faults" shows
    from when to when; its form can ask for a fault too.
    """
    from lab.servers.backend import choose_speakers

    backend = lab.backend
    chosen = choose_speakers(backend, models, "command")
    if now:
        sys.exit(break_now(lab, chosen if models else [], now, seconds))
    if scenario and not faults:
        raise LabError("--scenario breaks models in one way or some: name them with --fault")
    is_running = any(state.state == "running" for state in backend.state())
    names = list(dict.fromkeys(faults or FAULTS))
    plan = {"models": chosen, "faults": names, "seed": seed, "twin": twin, "scenario": scenario, "seconds": seconds}
    if out:
        if os.path.lexists(out):
            raise LabError(f"--out: {out} exists, and no result is overwritten: name another file")
        check_writable(out.parent)
    run = Run.create(NAME, {"plan": plan, "environment": describe_environment(backend.name)}, root=results)
    scores: list[Score] = []
    seen: list[UnderLoad] = []
    failed: list[str] = []
    try:
        with contextlib.nullcontext() if is_running else interrupts.sure(backend.down):
            backend.up(chosen)
            if scenario:
                for each in under_load(lab, chosen, names, scenario, seconds, failed, twin=twin):
                    seen.append(each)
                    with tolerated(_say):
                        run.keep(key_of(each.interval.model, each.interval.fault), each.as_json())
            else:
                for score in apply_all(backend, chosen, names, seed, control=twin):
                    scores.append(score)
                    with tolerated(_say):
                        run.keep(key_of(score.model, score.fault), score.as_json())
                    _say(f"{score.model}: {score.fault}: {score.verdict}")
            with tolerated(_say):
                run.finish({})
    finally:
        report(Outcome(run, scores, seen), as_json=as_json, out=out)
    if scenario:
        sys.exit(DID_NOT_HOLD if failed else exit_code_under_load(seen, len(chosen) * len(names)))
    untried = [model for model in models or [] if model not in {score.model for score in scores}]
    for model in untried:
        _say(f"{model}: nothing was tried, as it has no part that {', '.join(names)} could break")
    sys.exit(exit_code(scores, untried))


def report(outcome: Outcome, *, as_json: bool, out: Path | None) -> None:
    """Write the report, and print what there is of it."""
    run, scores, seen = outcome.run, outcome.scores, outcome.seen
    text = json.dumps([*(score.as_json() for score in scores), *(each.as_json() for each in seen)], indent=2)
    if as_json:
        click.echo(text)
    else:
        if scores:
            rows = [
                [model, *(show_cell(row.get(fault)) for fault in outcome.faults)] for model, row in outcome.card.items()
            ]
            show_table(["model", *outcome.faults], rows)
            show_table(DETAILS, [show_details(score) for score in scores], group=0)
        show_under_load(seen)
    if out:
        with tolerated(_say):
            write_new(out.parent, out.name, {"": f"{text}\n"})
    with tolerated(_say):
        run.write_report("report.md", render_markdown(outcome))
        run.write_report("index.html", faults_page.render(outcome))
        _say(str(run.folder / "index.html"))


def _say(line: str) -> None:
    click.echo(line, err=True)


def exit_code(scores: Iterable[Score], untried: Sequence[str] = ()) -> int:
    """Return 0 if all is as it should be; 1 if something is not; 2 if something is unknown or nothing was tried.

    Args:
        untried: models that were named and have no score.
    """
    scores = list(scores)
    if any(not score.is_fine and score.verdict is not Verdict.UNKNOWN for score in scores):
        return DID_NOT_HOLD
    if not scores or untried or any(score.verdict is Verdict.UNKNOWN for score in scores):
        return COULD_NOT_RUN
    return HELD


def exit_code_under_load(seen: Sequence[UnderLoad], wanted: int) -> int:
    """Return 0 if each model recovered; 1 if one did not, or ended; 2 if there are fewer than were wanted, or none."""
    if any(each.probe_report.recover is None or each.interval.ended is not None for each in seen):
        return DID_NOT_HOLD
    return HELD if len(seen) == wanted > 0 else COULD_NOT_RUN


def under_load(
    lab: Lab,
    models: Iterable[str],
    faults: Sequence[str],
    scenario: str,
    seconds: float,
    failed: list[str],
    *,
    twin: bool,
) -> Iterator[UnderLoad]:
    """Every fault on every model, in the middle of a scenario; what cannot be had is said, and left out.

    Args:
        failed: takes the models that had ended before they were broken.
    """
    for model in models:
        for fault in faults:
            try:
                yield apply_under_load(lab.backend, model, FAULTS[fault], scenario, seconds=seconds, control=twin)
            except CannotApplyError as error:
                _say(f"{model}: {fault}: unknown: {error}")
            except EndedError as error:
                failed.append(model)
                _say(f"{model}: {fault}: failed: {error}")


def show_under_load(found: Sequence[UnderLoad]) -> None:
    """Print what a witness saw, second by second."""
    rows = []
    for each in found:
        click.echo(f"{name_of(each)}: {each.probe_report}\n{show_load(each)}")
        rows += [
            [name_of(each), str(second), show(p50), show(p99), str(failed)]
            for second, p50, p99, failed in each.probe_report.seconds
        ]
    if rows:
        show_table(["model and fault", "second", "p50", "p99", "failed"], rows, group=0)


def break_now(lab: Lab, models: Sequence[str], fault: str, seconds: float) -> int:
    """Break models that run, all at once; prints when, a line of JSON each.

    Returns:
        The exit code: 1 if one of them ended although the fault leaves it running.

    Raises:
        CannotApplyError, NotHealedError: see `injected`.
        LabError: none is named.
    """
    if not models:
        raise LabError("--now breaks what somebody uses: name the models")

    def refuse(model: str, error: LabError) -> NoReturn:
        raise error

    stamps = inject_together(lab.backend, models, FAULTS[fault], seconds, _say, refuse)
    for stamp in stamps:
        click.echo(json.dumps(asdict(stamp)))
        if stamp.ended is not None:
            _say(f"{stamp.model}: ended with exit code {stamp.ended} and was started again")
    return DID_NOT_HOLD if any(stamp.ended is not None for stamp in stamps) else HELD
