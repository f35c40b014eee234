"""Whether `lab advise` is right: what it says of loads, and what those loads then do.

    python -m benchmarks.forecast [--models A,B] [--rounds 3] [--seconds 2]

A few loads that the load generator can give as they are asked for: PING on some and on many connections, replies that
wait, replies that compute for less and for more than a core. For each model: whether it can serve the load (what was
asked for was answered, and nothing was dropped), how much of its cores that took, and p99; beside what was said before.
What a computing reply takes is measured first, as what it costs one model beyond a PING.

What was said is made of the last run of `lab bench`, as `lab advise` makes it.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lab.base.errors import LabError
from lab.base.paths import RESULTS
from lab.base.units import show_time
from lab.cli.params import split_names
from lab.experiments.advise.model import Advice, Demand, advise_model
from lab.experiments.advise.sources import read_sources
from lab.load.cores import Pinning, pin_servers, split_cores
from lab.load.generator import PersistentGenerator
from lab.load.measure import MeteredServers, measure
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from lab.servers.backend import Backend, choose_models
from lab.servers.catalogue import Model
from lab.servers.open import open_backend

# Whose reply computes, when it is measured how long that takes.
_COMPUTES = "asyncio_streams"

# Of the requests that were due, so many answered is all of them: the window cuts the first and the last.
_ALL = 0.98


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: a scenario, and what somebody would say of it to `lab advise`. Times in seconds."""

    name: str
    scenario: str
    connections: int
    rate: float
    wait: float = 0.0
    cpu: float = 0.0


def list_loads(burn: float) -> list[Load]:
    """The loads, given what a computing reply takes."""
    return [
        Load("ping", "open_steady", 32, 4000.0),
        Load("ping, 100 connections", "open_steady", 100, 4000.0),
        Load("wait 20 ms", "open_sleep_20ms", 48, 1000.0, wait=0.02),
        Load("compute, half a core", "open_burn", 16, 0.5 / burn, cpu=burn),
        Load("compute, 1.5 cores", "open_burn", 16, 1.5 / burn, cpu=burn),
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model under one load: what was said, and what came of it."""

    advice: Advice
    found: Sequence[Measurement]

    @property
    def held(self) -> bool:
        """Whether it could serve the load, in most rounds."""
        return median(is_served(item) for item in self.found) > 0.5

    @property
    def cores(self) -> float | None:
        """What it used, if it could serve it."""
        known = [item.server.cores for item in self.found if item.server.cores is not None]
        return median(known) if known and self.held else None

    @property
    def p99(self) -> float | None:
        """Seconds, if it could serve it."""
        known = [value for item in self.found if (value := item.percentile(0.99)) is not None]
        return median(known) / 1e6 if known and self.held else None


def is_served(found: Measurement) -> bool:
    """Whether everything that was due was answered, and nobody was left out."""
    return (found.load.rate_ratio or 0.0) >= _ALL and not found.load.failures and not found.load.starved


def measure_burn(backend: Backend, pinning: Pinning | None) -> float:
    """What a computing reply takes, in seconds of CPU."""
    model = backend.catalogue[_COMPUTES]
    with PersistentGenerator(backend.helpers) as generator:
        costs = [
            measure(
                backend,
                model,
                find_preset(scenario).change(users=4, duration=3.0),
                pinning=pinning,
                generator=generator,
            ).server.cpu_us
            for scenario in ("closed_burn", "closed_ping")
        ]
    return find_burn(*costs)


def find_burn(burn: float | None, ping: float | None) -> float:
    """Return what a computing reply takes beyond a PING, in seconds, of the microseconds for each.

    Raises:
        LabError: one is not known, or computing costs nothing.
    """
    if burn is None or ping is None or burn <= ping:
        raise LabError(f"{_COMPUTES}: its CPU cannot be read here ({burn} µs to compute, {ping} µs for a PING)")
    return (burn - ping) / 1e6


def measure_all(
    backend: Backend,
    models: Sequence[Model],
    loads: Sequence[Load],
    rounds: int,
    seconds: float,
    pinning: Pinning | None,
) -> Iterator[tuple[str, Load, Measurement]]:
    """Every load on every model, round by round."""
    servers = MeteredServers(backend)
    with PersistentGenerator(backend.helpers) as generator:
        for number in range(1, rounds + 1):
            for load in loads:
                print(f"round {number} of {rounds}, {load.name}", file=sys.stderr, flush=True)
                for model in models:
                    yield (
                        model.name,
                        load,
                        measure(
                            backend,
                            model,
                            find_preset(load.scenario).change(users=load.connections, rate=load.rate, duration=seconds),
                            pinning=pinning,
                            generator=generator,
                            servers=servers,
                        ),
                    )


def main() -> None:
    """Say, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--models", default="", metavar="A,B", help="which; default: all of no profile")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--backend", choices=("docker", "process"), help="default: docker where an engine answers")
    options = parser.parse_args()
    try:
        backend = open_backend(options.backend, f"forecast-{os.getpid()}")
        catalogue = backend.catalogue
        models = [model for model in choose_models(backend, split_names(options.models)) if "command" in model.services]
        sources = read_sources(catalogue, None, RESULTS)
        pinning = split_cores()
        cores = len(pinning.servers) if pinning else sources.machine_cores
        found: dict[tuple[str, str], list[Measurement]] = {}
        try:
            backend.up({*(model.name for model in models), _COMPUTES})
            if pinning:
                pin_servers(backend, [model.name for model in models], pinning)
            burn = measure_burn(backend, pinning)
            loads = list_loads(burn)
            for name, load, item in measure_all(backend, models, loads, options.rounds, options.seconds, pinning):
                found.setdefault((load.name, name), []).append(item)
        finally:
            backend.down()
    except LabError as error:
        sys.exit(f"forecast.py: {error}")
    print(f"a computing reply takes {show_time(burn * 1e6)}; servers have {cores} core{'s' if cores > 1 else ''}")
    print(*sources.notes, sep="\n")
    outcomes = {
        (load.name, model.name): Outcome(
            advise_model(
                Demand(load.connections, load.rate, load.wait, load.cpu, 0.99, None, cores),
                sources.read(catalogue, model),
            ),
            found[load.name, model.name],
        )
        for load in loads
        for model in models
    }
    for load in loads:
        print(f"\n{load.name}: {load.connections} connections, {load.rate:.0f} requests/s")
        for model in models:
            print(show(model.name, outcomes[load.name, model.name]))
    print(*list_totals(outcomes), sep="\n")


def list_totals(outcomes: Mapping[tuple[str, str], Outcome]) -> Iterator[str]:
    """Yield the last lines of the report: how right it was, over all models and loads."""
    right = [item.held == item.advice.holds for item in outcomes.values()]
    cpu = [item.cores / (item.advice.cpu_load * item.advice.cores) for item in outcomes.values() if item.cores]
    times = [item.p99 / item.advice.response for item in outcomes.values() if item.p99 and item.advice.response]
    yield f"\nwhether it can serve the load: {sum(right)} of {len(right)} as was said"
    yield f"CPU, measured of what was said: {show_spread(cpu)}"
    yield f"p99, measured of what was said: {show_spread(times)}"


def show(model: str, outcome: Outcome) -> str:
    """A line: what was said, then what came."""
    advice = outcome.advice
    said = f"{'yes' if advice.holds else 'no':<4}{advice.cpu_load * advice.cores:5.2f} cores"
    came = f"{'yes' if outcome.held else 'no':<4}" + ("" if outcome.cores is None else f"{outcome.cores:5.2f} cores")
    times = [None if value is None else show_time(value * 1e6) for value in (advice.response, outcome.p99)]
    mark = "  " if outcome.held == advice.holds else "! "
    return f"  {mark}{model:<24}{said}, p99 {times[0] or '-':<10} -> {came:<16} p99 {times[1] or '-'}"


def show_spread(values: Sequence[float]) -> str:
    """The median, and what is left without a tenth at each end."""
    if not values:
        return "nothing to compare"
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return (
        f"{median(ordered):.2f} times, 80 % of them {ordered[tenth]:.2f} to {ordered[-1 - tenth]:.2f} ({len(ordered)})"
    )


if __name__ == "__main__":
    main()
