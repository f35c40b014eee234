"""Every model under the same loads, in turns: medians for docs/models/, written to docs/data/measured.json.

    python -m benchmarks.models
    python -m benchmarks.models --rounds 9 --models asyncio_streams,uvloop_streams --out /tmp/two.json

Then `make docs` puts the figures into the page. The lab is brought up, held to the conformance suite (what fails it is
not measured), measured and taken down. A round measures every model once under each workload, in an order of its own,
so that a busy moment of the machine does not always hit the same one.

The workloads: closed_session, on which every model makes progress; and closed_pipeline_16, which holds its connections,
so a model that serves one client at a time (the limit `overlap` in the catalogue) gets one client there.

The machine must have nothing else to do. What is measured alone with --models replaces the models of the file: figures
of two runs do not stand in one table. The `idle` part of the file is another script's, and stays.
"""

import argparse
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from lab.base.errors import LabError
from lab.cli.params import split_names
from lab.experiments.conformance.suite import check_in_subprocess
from lab.experiments.environment import describe_environment
from lab.experiments.published import MEASURED_FILE, Measured, summarize
from lab.load.generator import PersistentGenerator
from lab.load.measure import measure
from lab.load.measurement import Measurement
from lab.load.presets import PRESETS, find_preset
from lab.servers.backend import Backend
from lab.servers.catalogue import Catalogue, Model
from lab.servers.open import open_backend
from tools.docs.figures import PIPELINE, SESSIONS

USERS = 16


def users_of(model: Model, workload: str) -> int:
    """How many clients a model gets: one where it could serve no second one before the first has gone."""
    holds = PRESETS[workload].workload.holds_connection
    return 1 if holds and "overlap" in model.limits else USERS


def find_sound(backend: Backend, models: Sequence[Model]) -> tuple[list[Model], dict[str, str]]:
    """The models that hold to the conformance suite; the others, and why not."""
    checks = check_in_subprocess(backend, [model.name for model in models])
    missing = {}
    for model in models:
        if reason := checks[model.name].explain(model.name, backend.name):
            missing[model.name] = reason
    return [model for model in models if model.name not in missing], missing


def measure_rounds(
    backend: Backend, models: Sequence[Model], rounds: int, seconds: float
) -> Iterator[tuple[str, Measurement]]:
    """Measure, and say what is being done; yields the workload with each measurement.

    Raises:
        LabError: a model could not be measured at all.
    """
    with PersistentGenerator(backend.helpers) as generator:
        for number, workload in product(range(1, rounds + 1), (SESSIONS, PIPELINE)):
            able = [model for model in models if PRESETS[workload].workload.service in model.services]
            random.shuffle(able)
            for model in able:
                users = users_of(model, workload)
                found = measure(
                    backend, model, find_preset(workload).change(users=users, duration=seconds), generator=generator
                )
                print(
                    f"round {number} of {rounds}, {workload}, {model.name}: {found.rate:.0f} requests/s, "
                    f"{found.verdict.bound}",
                    file=sys.stderr,
                    flush=True,
                )
                yield workload, found


def main() -> None:
    """Up, check, measure, write, down."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=__doc__.rpartition("\n\n")[2].strip()
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements behind each median (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each (default: %(default)s)")
    parser.add_argument("--models", default="", metavar="A,B", help="which; default: all that belong to no profile")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="also the models of a profile")
    parser.add_argument("--backend", choices=("docker", "process"), help="default: docker where an engine answers")
    parser.add_argument("--project", default=f"bench-models-{os.getpid()}", help="the name of the lab")
    parser.add_argument("--out", type=Path, default=MEASURED_FILE, help="default: docs/data/measured.json")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds is at least 1, and --seconds above 0")

    catalogue = Catalogue.load()
    try:
        chosen = catalogue.select(split_names(options.models), options.profile)
        backend = open_backend(options.backend, options.project, catalogue=catalogue)
        measured = run(backend, chosen, options.rounds, options.seconds)
        measured.save(options.out)
    except LabError as error:
        sys.exit(f"models.py: {error}")
    for model, reason in measured.missing.items():
        print(f"not measured: {model}: {reason}", file=sys.stderr)
    print(f"{len(measured.models)} models, written to {options.out}; `make docs` puts them into the page")


def run(backend: Backend, chosen: Sequence[Model], rounds: int, seconds: float) -> Measured:
    """Measure on a lab that exists for as long as this takes.

    Raises:
        LabError: it could not be done.
    """
    missing = {}
    for model in chosen:
        if not any(PRESETS[workload].workload.service in model.services for workload in (SESSIONS, PIPELINE)):
            missing[model.name] = "it speaks none of the services that the workloads ask"
        elif not backend.in_containers and model.only_in_container:
            missing[model.name] = "it runs in a container only"
    models = [model for model in chosen if model.name not in missing]
    found: dict[str, dict[str, list[Measurement]]] = {}
    try:
        backend.up([model.name for model in models])
        sound, failing = find_sound(backend, models)
        versions: Mapping[str, str] | None = None
        for workload, item in measure_rounds(backend, sound, rounds, seconds):
            found.setdefault(item.model, {}).setdefault(workload, []).append(item)
            versions = item.load.versions
        environment = describe_environment(backend.describe(), versions=versions)
        environment |= backend.describe_models(sound)
    finally:
        backend.down()
    summaries = {
        model.name: {workload: summarize(items) for workload, items in found[model.name].items()}
        for model in sound
        if model.name in found
    }
    return Measured(environment=environment, seconds=seconds, models=summaries, missing=missing | failing)


if __name__ == "__main__":
    main()
