"""Whether the accounts show what is known: a model that computes 100 µs longer for each request, beside itself.

    python -m benchmarks.slowed [--rounds 7] [--seconds 2] [--rate 2000]

Two servers of `asyncio_streams`, as processes; one of them burns 100 µs of its own CPU time before each request, by its
thread's CPU clock. Both are asked at one rate, in turns. What the CPU time per request of the two differs by must be
these 100 µs, within 10 %, in the median over the rounds: exit code 1 if it is not.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.figures import in_turn
from lab.load.generator import PersistentGenerator
from lab.load.measure import measure
from lab.load.presets import find_preset
from lab.servers.open import open_backend

MODEL = "asyncio_streams"
ADDED_US = 100.0
_MOST = 0.1

# Imported by every Python that starts with its folder in PYTHONPATH.
_SLOWED = f"""
import sys
if "services.run" in sys.orig_argv:
    from time import thread_time_ns
    from services.protocol import Connection
    right = Connection.receive_data
    def receive_data(self, data):
        end = thread_time_ns() + {ADDED_US * 1000:.0f}
        while thread_time_ns() < end:
            pass
        right(self, data)
    Connection.receive_data = receive_data
"""


def judge(plain: Sequence[float], slowed: Sequence[float]) -> tuple[float, bool]:
    """Return the difference of the medians in microseconds, and whether it is what was added."""
    shown = median(slowed) - median(plain)
    return shown, abs(shown / ADDED_US - 1) <= _MOST


def main() -> None:
    """Up, measure in turns, compare, down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=2000.0)
    options = parser.parse_args()
    plain, slowed = open_backend("process", "slowed-plain"), open_backend("process", "slowed-slowed")
    model = plain.catalogue[MODEL]
    costs: dict[str, list[float]] = {plain.project: [], slowed.project: []}
    try:
        plain.up([MODEL])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "sitecustomize.py").write_text(_SLOWED)
            os.environ["PYTHONPATH"] = folder
            slowed.up([MODEL])
            del os.environ["PYTHONPATH"]
        with PersistentGenerator(plain.helpers) as generator:
            for number in range(options.rounds):
                for backend in in_turn([plain, slowed], number):
                    found = measure(
                        backend,
                        model,
                        find_preset("open_steady").change(users=16, duration=options.seconds, rate=options.rate),
                        generator=generator,
                    )
                    if found.load.failures or found.server.cpu_us is None:
                        sys.exit(f"{backend.project}: {found.load.failures}, CPU {found.server.cpu_us}")
                    costs[backend.project].append(found.server.cpu_us)
    finally:
        plain.down()
        slowed.down()
    shown, holds = judge(costs[plain.project], costs[slowed.project])
    for name, values in costs.items():
        print(f"{name}: {median(values):.1f} µs of CPU per request (of {sorted(round(value, 1) for value in values)})")
    print(f"the two differ by {shown:.1f} µs; {ADDED_US:g} µs were added: {shown / ADDED_US - 1:+.1%}")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
