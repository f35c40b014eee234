"""A measurement with nothing special about it: tests `replace` in it what they are about."""

from lab.measurement import Measurement
from lab.verdict import Bound, Verdict

MEASUREMENT = Measurement(
    model="asyncio_streams",
    family="coroutine",
    summary="one line",
    backend="process",
    workload="closed_session",
    users=16,
    depth=1,
    seconds=1.0,
    answered=10_000,
    failures={},
    histogram=((100.0, 9_000), (900.0, 1_000)),
    mean_us=180.0,
    min_us=90.0,
    max_us=900.0,
    starved=0,
    in_flight=16.0,
    server_cpu_us=40.0,
    server_cores=0.4,
    generator_cores=0.7,
    machine_cores=1.2,
    cores=2,
    memory_bytes=15 * 2**20,
    threads=2,
    versions={},
    verdict=Verdict(Bound.SERVER, "the server used 99% of a core"),
)
