"""`lab faults`: the scorecard, and a fault on what runs already."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from lab.cli import COULD_NOT_RUN, DID_NOT_HOLD, HELD, Lab, show_table
from lab.errors import LabError
from lab.faults import applied
from lab.faults.scorecard import FAULTS, Score, Verdict, apply_all
from lab.load import SECONDS


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
@click.option("--for", "seconds", type=SECONDS, default="5s", show_default=True, help="With --now: how long.")
@click.option("--json", "as_json", is_flag=True, help="Each score with its account, for a script.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the same to a file.")
@click.pass_obj
def faults(
    lab: Lab,
    models: tuple[str, ...],
    faults: tuple[str, ...],
    seed: int,
    twin: bool,
    now: str | None,
    seconds: float,
    as_json: bool,
    out: Path | None,
) -> None:
    """Break models while they are under load, account for every request, and mend them.

    Each score is held, degraded (with figures), failed, or unknown, where the fault cannot be had here. A model that is
    said to fail (lab.limit in the catalogue) must do so. Exit code 1: something is not as it should be; 2: something is
    unknown.

    Models that run are used as they are, and run again afterwards; if none runs, those asked for are started, and taken
    down.

    --now is for a load that runs in Locust's web UI: it breaks the models for a while, and prints from when to when.
    """
    from lab.backends import choose_models

    backend = lab.backend
    chosen = [model.name for model in choose_models(backend, models) if "command" in model.services]
    if now:
        break_now(lab, chosen if models else [], now, seconds)
        return
    is_running = any(state.state == "running" for state in backend.state())
    scores: list[Score] = []
    try:
        backend.up(chosen)
        for score in apply_all(backend, chosen, faults or list(FAULTS), seed, twin=twin):
            scores.append(score)
            if not as_json:
                click.echo(f"{score.model}: {score.fault}: {score.verdict}", err=True)
    finally:
        if not is_running:
            backend.down()
    found = json.dumps([score.as_json() for score in scores], indent=2)
    if out:
        try:
            out.write_text(f"{found}\n")
        except OSError as error:
            raise LabError(f"--out: {error}") from None
    if as_json:
        click.echo(found)
    else:
        show_table(["model", *FAULTS], _card(scores))
        show_table(["model", "fault", "verdict", "again after", "why"], [_row(score) for score in scores], group=0)
    sys.exit(exit_code(scores))


def exit_code(scores: Iterable[Score]) -> int:
    """0 if all is as it should be; 1 if something is not; 2 if something is unknown, which never counts as held."""
    scores = list(scores)
    if any(not score.is_fine and score.verdict is not Verdict.UNKNOWN for score in scores):
        return DID_NOT_HOLD
    return COULD_NOT_RUN if any(score.verdict is Verdict.UNKNOWN for score in scores) else HELD


def break_now(lab: Lab, models: Iterable[str], fault: str, seconds: float) -> None:
    """Break models that run, one after the other, for some seconds each; prints when, a line of JSON each.

    Raises:
        CannotApplyError, NotHealedError: see `applied`.
        LabError: none is named.
    """
    names = list(models)
    if not names:
        raise LabError("--now breaks what somebody uses: name the models")
    for name in names:
        with applied(FAULTS[fault], lab.backend, name) as stamp:
            click.echo(f"{name}: {fault} since {stamp.begin}, for {seconds:g} s; Ctrl-C mends it", err=True)
            time.sleep(seconds if FAULTS[fault].hold else 0.0)
        click.echo(json.dumps(asdict(stamp)))


def _card(scores: Iterable[Score]) -> list[list[str]]:
    cells: dict[str, dict[str, str]] = {}
    for score in scores:
        mark = "" if score.is_fine or score.verdict is Verdict.UNKNOWN else "!"
        cells.setdefault(score.model, {})[score.fault] = (
            f"{score.verdict}{mark}{' (declared)' if score.expected else ''}"
        )
    return [[model, *(row.get(fault, "-") for fault in FAULTS)] for model, row in cells.items()]


def _row(score: Score) -> list[str]:
    recovery = "" if score.recovery is None else f"{score.recovery:.2f} s"
    reason = f"{score.reason} (declared: {score.expected})" if score.expected else score.reason
    return [score.model, score.fault, score.verdict, recovery, reason]
