"""A measurement, a load and a model with default values; tests `replace` the fields that they need."""

from dataclasses import asdict

from lab.experiments.advise.model import Demand, Known
from lab.experiments.theory import Server
from lab.load.measurement import Measurement
from lab.metrics.server_use import ServerUse
from lab.metrics.verdict import Limit, Verdict
from loadtests.contract import LoadResult
from loadtests.sockets.histogram import Histogram

MEASUREMENT = Measurement(
    family="coroutine",
    summary="one line",
    backend="process",
    workload="closed_session",
    load=LoadResult(
        model="asyncio_streams",
        transport="tcp",
        users=16,
        depth=1,
        seconds=1.0,
        answered=10_000,
        failures={},
        service=Histogram.from_json(
            {"pairs": ((100.0, 9_000), (900.0, 1_000)), "mean_us": 180.0, "min_us": 90.0, "max_us": 900.0}
        ),
        generator_cores=0.7,
        machine_cores=1.2,
        cores=2,
    ),
    server=ServerUse(cpu_us=40.0, cores=0.4, memory_bytes=15 * 2**20, threads=2),
    verdict=Verdict(Limit.SERVER, "the server used 99% of a core"),
)


def vary(found: Measurement, **changes: object) -> Measurement:
    """Return a measurement with other fields, by the names that they have in JSON."""
    data = found.as_json()
    assert changes.keys() <= data.keys()
    if isinstance(verdict := changes.get("verdict"), Verdict):
        changes["verdict"] = asdict(verdict)
    if "users" in changes:
        changes["mean_users"] = changes["users"]
    if "histogram" in changes:
        sent = Histogram.from_pairs(changes.get("service") or changes["histogram"])  # type: ignore[arg-type]  # pairs
        changes = {"mean_us": sent.mean_us, "min_us": sent.min_us, "max_us": sent.max_us} | changes
    return Measurement.from_json(data | changes)


MIB = 2**20
# 1000 requests/s that wait 20 ms and compute 0.4 ms, on 1000 connections.
LOAD = Demand(connections=1000, rate=1000.0, wait=0.02, cpu=0.0004, share=0.99, limit=0.05, cores=2)
LOOP = Known(
    "loop",
    Server("loop", None, 12_000, False),
    costs=((500.0, 0.0001), (10_000.0, 0.0001)),
    base_bytes=10 * MIB,
    connection_bytes=0.01 * MIB,
    most_connections=10_000,
    most_rate=10_000.0,
    memory_limit=512 * MIB,
)
