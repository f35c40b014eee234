"""`lab faults`: the scorecard."""

import json
import sys
from pathlib import Path

import click

from lab.cli import DID_NOT_HOLD, HELD, Lab, show_table
from lab.faults.scorecard import FAULTS, Score, Verdict, apply_all


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--fault", "faults", multiple=True, type=click.Choice(list(FAULTS)), help="By default all; repeatable.")
@click.option(
    "--seed", default=1, show_default=True, help="The same seed: the same requests, broken at the same moment."
)
@click.option("--json", "as_json", is_flag=True, help="Each score with its account, for a script.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the same to a file.")
@click.pass_obj
def faults(
    lab: Lab, models: tuple[str, ...], faults: tuple[str, ...], seed: int, as_json: bool, out: Path | None
) -> None:
    """Break models while they are under load, and account for every request.

    drain: SIGTERM; every request that was accepted is answered, once and in order. kill: SIGKILL and a restart; what
    was not answered is known, and nobody gets a reply that is not theirs. nothing: the same without a fault.

    Models that run are used as they are, and run again afterwards; if none runs, those asked for are started, and taken
    down. What cannot be known is `unknown`, and does not count as held.
    """
    from lab.backends import choose_models

    backend = lab.backend
    chosen = [model.name for model in choose_models(backend, models) if "command" in model.services]
    is_running = any(state.state == "running" for state in backend.state())
    try:
        backend.up(chosen)
        scores = apply_all(backend, chosen, faults or list(FAULTS), seed)
    finally:
        if not is_running:
            backend.down()
    found = json.dumps([score.as_json() for score in scores], indent=2)
    if out:
        out.write_text(f"{found}\n")
    if as_json:
        click.echo(found)
    else:
        show_table(["model", "fault", "verdict", "again after", "why"], [_row(score) for score in scores], group=0)
    sys.exit(HELD if all(score.verdict in (Verdict.HELD, Verdict.DEGRADED) for score in scores) else DID_NOT_HOLD)


def _row(score: Score) -> list[str]:
    recovery = "" if score.recovery is None else f"{score.recovery:.2f} s"
    return [score.model, score.fault, score.verdict, recovery, score.reason]
