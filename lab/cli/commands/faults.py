"""Inject faults: a scorecard of all models, a fault under a preset's load, or a fault into what runs already."""

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
from lab.cli.context import COULD_NOT_RUN, DID_NOT_HOLD, HELD, Lab, say
from lab.cli.params import DURATION, models_argument, out_option
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
from lab.report.tables import show_table

NAME = "faults"


@click.command()
@models_argument
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice(list(FAULTS)),
    metavar="FAULT",
    help="Fault to inject, listed below (default: all); repeatable.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the requests and of the moment of the fault.")
@click.option(
    "--control",
    is_flag=True,
    help="Control run: everything except the fault. Failures here are not caused by it.",
)
@click.option(
    "--now",
    type=click.Choice(list(FAULTS)),
    metavar="FAULT",
    help="Inject this fault into running models for --duration: no load, no score.",
)
@click.option(
    "--duration", type=DURATION, default="5s", show_default=True, help="Length of the fault, with --now and --preset."
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    metavar="NAME",
    help="Inject the fault in the middle of this load (see `lab load --help`).",
)
@click.option("--show", "shown", metavar="RUN", help="Inject nothing; print the results of a run.")
@click.option("--json", "as_json", is_flag=True, help="Print each score with its request counts as JSON.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the same JSON to a file."
)
@out_option
@click.pass_obj
def faults(
    lab: Lab,
    models: tuple[str, ...],
    faults: tuple[str, ...],
    seed: int,
    control: bool,
    now: str | None,
    duration: float,
    preset: str | None,
    shown: str | None,
    as_json: bool,
    output: Path | None,
    out: Path,
) -> None:
    """Inject faults into models (default: all of no profile) under load, account for every request, and heal them.

    The score of a model is held, degraded (with figures), failed, or unknown if this machine does not support the
    fault. A model with a declared limit (lab.limit in the catalogue) must fail.

    If no model is running, the command starts them, and takes them down afterwards.

    --preset applies a load of `lab load`, injects the fault in its middle, and measures the PINGs of a latency probe
    before, during and after it: the time to detect and the time to recover.

    Both write a report, results/faults/<UTC time>/index.html, and keep each score as soon as it is known.

    --now injects one fault into running models that others may be using. The tab "Faults" of Locust's web UI shows the
    interval, and its form can inject faults too.

    Exit code 1: a model failed that should not, or did not recover. 2: a score is unknown, or a named model has none.
    """
    from lab.servers.backend import choose_speakers

    if shown:
        report(Outcome.read(Run.find(shown, NAME, root=out)), as_json=as_json, output=output)
        return
    backend = lab.backend
    chosen = choose_speakers(backend, models, "command")
    if now:
        sys.exit(inject_now(lab, chosen if models else [], now, duration))
    if preset and not faults:
        raise LabError("--preset needs at least one --fault")
    is_running = any(state.state == "running" for state in backend.state())
    names = list(dict.fromkeys(faults or FAULTS))
    plan = {
        "models": chosen,
        "faults": names,
        "seed": seed,
        "control": control,
        "scenario": preset,
        "seconds": duration,
    }
    if output:
        if os.path.lexists(output):
            raise LabError(f"--output: {output} exists, and no result is overwritten: name another file")
        check_writable(output.parent)
    run = Run.create(NAME, {"plan": plan, "environment": describe_environment(backend.describe())}, root=out)
    scores: list[Score] = []
    seen: list[UnderLoad] = []
    failed: list[str] = []
    try:
        with contextlib.nullcontext() if is_running else interrupts.sure(backend.down):
            backend.up(chosen)
            if preset:
                for each in under_load(lab, chosen, names, preset, duration, failed, control=control):
                    seen.append(each)
                    with tolerated(say):
                        run.keep(key_of(each.interval.model, each.interval.fault), each.as_json())
            else:
                for score in apply_all(backend, chosen, names, seed, control=control):
                    scores.append(score)
                    with tolerated(say):
                        run.keep(key_of(score.model, score.fault), asdict(score))
                    say(f"{score.model}: {score.fault}: {score.verdict}")
            with tolerated(say):
                run.finish({})
    finally:
        report(Outcome(run, scores, seen), as_json=as_json, output=output)
    if preset:
        sys.exit(DID_NOT_HOLD if failed else exit_code_under_load(seen, len(chosen) * len(names)))
    untried = [model for model in models if model not in {score.model for score in scores}]
    for model in untried:
        say(f"{model}: nothing was tried: {', '.join(names)} does not apply to it")
    sys.exit(exit_code(scores, untried))


def report(outcome: Outcome, *, as_json: bool, output: Path | None) -> None:
    """Print the scores, and write the report."""
    run, scores, seen = outcome.run, outcome.scores, outcome.seen
    text = json.dumps([*(asdict(score) for score in scores), *(each.as_json() for each in seen)], indent=2)
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
    if output:
        with tolerated(say):
            write_new(output.parent, output.name, {"": f"{text}\n"})
    with tolerated(say):
        say(str(run.write_page(faults_page.render(outcome), render_markdown(outcome))))


def exit_code(scores: Iterable[Score], untried: Sequence[str] = ()) -> int:
    """Return 0 if each score is as expected, 1 if one is not, 2 if one is unknown or nothing was tried.

    Args:
        untried: Named models without a score.
    """
    scores = list(scores)
    if any(not score.is_fine and score.verdict is not Verdict.UNKNOWN for score in scores):
        return DID_NOT_HOLD
    if not scores or untried or any(score.verdict is Verdict.UNKNOWN for score in scores):
        return COULD_NOT_RUN
    return HELD


def exit_code_under_load(seen: Sequence[UnderLoad], wanted: int) -> int:
    """Return 0 if each model recovered, 1 if one did not or ended, 2 if fewer than wanted were tested."""
    if any(each.probe_report.recover is None or each.interval.ended is not None for each in seen):
        return DID_NOT_HOLD
    return HELD if len(seen) == wanted > 0 else COULD_NOT_RUN


def under_load(
    lab: Lab,
    models: Iterable[str],
    faults: Sequence[str],
    preset: str,
    seconds: float,
    failed: list[str],
    *,
    control: bool,
) -> Iterator[UnderLoad]:
    """Inject every fault into every model in the middle of a load; report and skip faults that are not supported.

    Args:
        failed: Collects the models that ended before the injection.
    """
    for model in models:
        for fault in faults:
            try:
                yield apply_under_load(lab.backend, model, FAULTS[fault], preset, seconds=seconds, control=control)
            except CannotApplyError as error:
                say(f"{model}: {fault}: unknown: {error}")
            except EndedError as error:
                failed.append(model)
                say(f"{model}: {fault}: failed: {error}")


def show_under_load(found: Sequence[UnderLoad]) -> None:
    """Print what the latency probe measured in each second."""
    rows = []
    for each in found:
        click.echo(f"{name_of(each)}: {each.probe_report}\n{show_load(each)}")
        rows += [
            [name_of(each), str(second), show(p50), show(p99), str(failed)]
            for second, p50, p99, failed in each.probe_report.seconds
        ]
    if rows:
        show_table(["model and fault", "second", "p50", "p99", "failed"], rows, group=0)


def inject_now(lab: Lab, models: Sequence[str], fault: str, seconds: float) -> int:
    """Inject a fault into running models at the same time; print each interval as a line of JSON.

    Returns:
        The exit code: 1 if a model ended although the fault leaves it running.

    Raises:
        CannotApplyError, NotHealedError: See `injected`.
        LabError: No model is named.
    """
    if not models:
        raise LabError("--now injects a fault into models that others may be using: name them")

    def refuse(model: str, error: LabError) -> NoReturn:
        raise error

    intervals = inject_together(lab.backend, models, FAULTS[fault], seconds, say, refuse)
    for interval in intervals:
        click.echo(json.dumps(asdict(interval)))
        if interval.ended is not None:
            say(f"{interval.model}: ended with exit code {interval.ended} and was restarted")
    return DID_NOT_HOLD if any(interval.ended is not None for interval in intervals) else HELD


# \b keeps click from filling the lines.
faults.epilog = "\b\nFaults:\n" + "\n".join(f"  {fault.name:<13}{fault.summary}" for fault in FAULTS.values())
