"""How many generators a server needs: the CPU of both sides for one request, in the same run. For docs/scaling-out.md.

    python -m benchmarks.scaling [REPEATS]

CPU time is what repeats, also on two cores that the two sides share: a rate there says how the kernel dealt them out.
What a generator spends on a request, divided by what the server does, is how many generator cores keep one core of that
server busy. The models take turns; printed are medians, with the smallest and the largest.
"""

import json
import sys
from collections.abc import Sequence
from statistics import median

from benchmarks.figures import list_ratios, show_range, us_per_request
from lab.experiments.environment import describe_environment
from lab.load.measure import measure
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from lab.servers.catalogue import Catalogue
from lab.servers.open import open_backend

MODELS = ("uvloop_protocol", "asyncio_streams", "socketserver_threading", "prefork")
SCENARIOS = ("closed_ping", "closed_session", "closed_echo_64k")
WORKERS = (0, 2)
USERS = 32
SECONDS = 2.0


def generator_us(found: Measurement) -> float:
    """The CPU of all generators for one request, in microseconds."""
    return us_per_request(found.load.generator_cores or 0.0, found.rate)


def show(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{median(values):8.1f} {show_range(values, '.1f')}"


def make_row(scenario: str, model: str, workers: int, results: Sequence[Measurement]) -> str:
    """Return the row of one load of one model, by so many workers."""
    known = [item for item in results if item.server.cpu_us and item.load.generator_cores]
    generators = [generator_us(item) for item in known]
    servers = [item.server.cpu_us or 0.0 for item in known]
    ratios = list_ratios(generators, servers)
    shown = f"{show(generators):26} {show(servers):26} {show(ratios)}" if known else "the CPU of a side is not known"
    return f"{scenario:16} {model:24} {workers:7} {shown}"


def main(repeats: int) -> None:
    """Measure in turns, and print a row for each."""
    backend = open_backend("process", "scaling", catalogue=Catalogue.load())
    found: dict[tuple[str, str, int], list[Measurement]] = {}
    try:
        backend.up(MODELS)
        for _ in range(repeats):
            for scenario in SCENARIOS:
                for model in MODELS:
                    for workers in WORKERS:
                        result = measure(
                            backend,
                            backend.catalogue[model],
                            find_preset(scenario).change(users=USERS, duration=SECONDS),
                            workers=workers,
                        )
                        found.setdefault((scenario, model, workers), []).append(result)
    finally:
        backend.down()
    print(json.dumps(describe_environment(), indent=2))
    print(
        f"{'scenario':16} {'model':24} {'workers':7} {'generator µs/req':26} {'server µs/req':26} generators per core"
    )
    for (scenario, model, workers), results in found.items():
        print(make_row(scenario, model, workers, results))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
