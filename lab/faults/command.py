"""`lab faults`: the scorecard, and a fault on what runs already."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from lab.cli import COULD_NOT_RUN, DID_NOT_HOLD, HELD, Lab, show_table
from lab.errors import LabError
from lab.faults import CannotApplyError, applied
from lab.faults.around import UnderLoad, apply_under_load
from lab.faults.scorecard import FAULTS, Score, Verdict, apply_all
from lab.load import SECONDS
from lab.workloads import SCENARIOS


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
    "--scenario", type=click.Choice(list(SCENARIOS)), metavar="NAME", help="Load of `lab load`, broken in its middle."
)
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
    scenario: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Break models while they are under load, account for every request, and mend them.

    Each score is held, degraded (with figures), failed, or unknown, where the fault cannot be had here. A model that is
    said to fail (lab.limit in the catalogue) must do so. Exit code 1: something is not as it should be; 2: something is
    unknown.

    Models that run are used as they are, and run again afterwards; if none runs, those asked for are started, and taken
    down.

    --scenario puts one of Locust's scenarios on the models, breaks them in its middle, and shows what another client's
    PING took before, while and after: time to detect, and time to recover.

    --now is for a load that runs in Locust's web UI: it breaks the models for a while, and prints from when to when.
    """
    from lab.backends import choose_models

    backend = lab.backend
    chosen = [model.name for model in choose_models(backend, models) if "command" in model.services]
    if now:
        break_now(lab, chosen if models else [], now, seconds)
        return
    if scenario and not faults:
        raise LabError("--scenario breaks models in one way or some: name them with --fault")
    is_running = any(state.state == "running" for state in backend.state())
    scores: list[Score] = []
    try:
        backend.up(chosen)
        if scenario:
            seen = list(under_load(lab, chosen, faults, scenario, seconds, twin=twin))
            show_under_load(seen, as_json=as_json, out=out)
            if any(each.around.recover is None for each in seen):
                sys.exit(DID_NOT_HOLD)
            sys.exit(HELD if len(seen) == len(chosen) * len(faults) else COULD_NOT_RUN)
        for score in apply_all(backend, chosen, faults or list(FAULTS), seed, twin=twin):
            scores.append(score)
            if not as_json:
                click.echo(f"{score.model}: {score.fault}: {score.verdict}", err=True)
    finally:
        if not is_running:
            backend.down()
    write([score.as_json() for score in scores], as_json=as_json, out=out)
    if not as_json:
        show_table(["model", *FAULTS], _card(scores))
        show_table(["model", "fault", "verdict", "again after", "why"], [_row(score) for score in scores], group=0)
    sys.exit(exit_code(scores))


def exit_code(scores: Iterable[Score]) -> int:
    """0 if all is as it should be; 1 if something is not; 2 if something is unknown, which never counts as held."""
    scores = list(scores)
    if any(not score.is_fine and score.verdict is not Verdict.UNKNOWN for score in scores):
        return DID_NOT_HOLD
    return COULD_NOT_RUN if any(score.verdict is Verdict.UNKNOWN for score in scores) else HELD


def write(found: Sequence[object], *, as_json: bool, out: Path | None) -> None:
    """Write what was found as JSON: into a file, or to stdout, or both, or nowhere.

    Raises:
        LabError: it cannot be written there.
    """
    text = json.dumps(found, indent=2)
    if out:
        try:
            out.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise LabError(f"--out: {error}") from None
    if as_json:
        click.echo(text)


def under_load(
    lab: Lab, models: Iterable[str], faults: Sequence[str], scenario: str, seconds: float, *, twin: bool
) -> Iterator[UnderLoad]:
    """Every fault on every model, in the middle of a scenario; what cannot be had is said, and left out."""
    for model in models:
        for fault in faults:
            try:
                yield apply_under_load(lab.backend, model, FAULTS[fault], scenario, seconds=seconds, twin=twin)
            except CannotApplyError as error:
                click.echo(f"{model}: {fault}: unknown: {error}", err=True)


def show_under_load(found: Sequence[UnderLoad], *, as_json: bool, out: Path | None) -> None:
    """Print what a witness saw, second by second, and write it."""
    write([each.as_json() for each in found], as_json=as_json, out=out)
    if as_json:
        return
    rows = []
    for each in found:
        load = each.measurement
        name, failed = f"{load.model}: {each.stamp.fault}", sum(load.failures.values())
        about = f"p99 before {_ms(each.around.quiet_p99)}, detected after {_ms(each.around.detect)}"
        about += f", recovered after {_ms(each.around.recover)}; of the load {load.answered} answered, {failed} failed"
        click.echo(f"{name}: {about}")
        rows += [[name, str(second), _ms(p50), _ms(p99), str(lost)] for second, p50, p99, lost in each.around.seconds]
    show_table(["model and fault", "second", "p50", "p99", "failed"], rows, group=0)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f} ms"


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
