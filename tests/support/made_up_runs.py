"""Results with made-up figures: a run of the benchmark, and scores of faults."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from lab.clients.request_log import Account
from lab.clients.soak_traffic import TrafficCounts
from lab.experiments.bench.plan import MODES, Plan
from lab.experiments.faults.fault import FaultInterval
from lab.experiments.faults.judge import Score
from lab.experiments.faults.judge import Verdict as FaultVerdict
from lab.experiments.faults.probe_reader import ProbeReport
from lab.experiments.faults.under_load import UnderLoad
from lab.experiments.soak import MEGABYTE, Reading, SoakResult, judge
from lab.experiments.store import Run
from lab.experiments.theory import describe_concurrency
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, Verdict
from lab.report.faults_text import Outcome, key_of
from lab.servers.catalogue import Catalogue
from tests.support.made_up import MEASUREMENT, vary

CATALOGUE = Catalogue.load()
# One far behind, and one that could not be measured at all.
RATES = {"asyncio_streams": 9_000, "thread_pool": 11_000, "plain_socket": 50, "prefork": None}
PLAN = Plan(tuple(RATES), ("session", "sleep_20ms"), (), (4, 16), MODES[:3], 3, 1.0, 0.0, 1, "asyncio_streams", None)


def make_bench_run(root: Path, rates: Mapping[str, int | None] = RATES, plan: Plan = PLAN) -> Run:
    """Make a run of the benchmark.

    Args:
        rates: requests per second by model; None for one that could not be measured.
        plan: of these models.
    """
    plain = vary(
        MEASUREMENT,
        histogram=((100.0, 900), (900.0, 100), (40_000.0, 3)),
        server_cpu_us=80.0,
        verdict=Verdict(Limit.SERVER, "<b>the server</b> used 99%"),
    )
    run = Run.create(
        "bench",
        {
            "plan": plan.as_json(),
            "environment": {"processor": "<i>a test's</i>", "commit": None},
            "models": describe_concurrency(CATALOGUE, CATALOGUE.select(plan.models)),
        },
        root=root,
    )
    for workload in plan.workloads:
        for number, (model, rate) in enumerate(rates.items()):
            cost = 80.0 + 10 * number
            for users in plan.levels if rate else ():
                answered = (rate or 0) // 2
                found = vary(plain, users=users, answered=answered, server_cpu_us=cost, memory_bytes=users * 2**20)
                run.keep(f"sweep/{workload}/{model}/{users}", {"measurement": found.as_json()})
            for step in (f"round-{n}/{workload}/{model}/{mode}" for n in (1, 2, 3) for mode in plan.modes):
                found = vary(plain, answered=(rate or 0) + number, server_cpu_us=cost)
                run.keep(step, {"measurement": found.as_json()} if rate else {"failure": "it <u>has ended</u>"})
    for model in rates:
        run.keep_log(model, "ready\n")
    run.finish({})
    return run


ACCOUNT = Account(8, 8, 1_000, 990, 0, {}, {"end": 8})
SEEN = ProbeReport(0.002, 0.012, 0.35, 0.48, 3, 0.5, ((-1, 0.001, 0.002, 0), (0, 0.2, 0.48, 3), (1, None, None, 4)))


def make_score(model: str, fault: str, verdict: FaultVerdict = FaultVerdict.HELD, **changes: object) -> Score:
    score = Score(model, fault, verdict, f"because of <b>{fault}</b>", 1, 0.3, account=ACCOUNT, probe_report=SEEN)
    return replace(score, **changes)  # type: ignore[arg-type] # each is a field's


SCORES = (
    make_score("prefork", "pause"),
    make_score("prefork", "slow-clients", FaultVerdict.FAILED, expected="64 places", account=None, probe_report=None),
    make_score("trio_nursery", "pause", FaultVerdict.DEGRADED, probe_report=replace(SEEN, recover=3.0)),
    make_score("trio_nursery", "latency", FaultVerdict.UNKNOWN, account=None, probe_report=None),
    make_score("trio_nursery", "slow-clients", FaultVerdict.FAILED, account=None, probe_report=None),
)


def make_outcome(root: Path) -> Outcome:
    """Return the outcome of two models under three faults, and of one fault under load."""
    load = vary(MEASUREMENT, model="prefork", failures={"timeout": 2})
    interval = FaultInterval("pause", "prefork", is_control=False)
    interval.close()
    run = Run.create("faults", {"environment": {"processor": "<i>a test's</i>", "commit": None}}, root=root)
    for score in SCORES:
        run.keep(key_of(score.model, score.fault), asdict(score))
    return Outcome(run, SCORES, [UnderLoad(interval, SEEN, load)])


def make_soak(model: str, growth: float, readings: int = 30) -> SoakResult:
    """Return the result of a soak whose memory grows by so many bytes between two readings."""
    found = [Reading(10.0 * n, int(20e6 + growth * n), 26 + n // 9 * (growth > 0), 1, 0) for n in range(readings)]
    return judge(model, found, TrafficCounts(9, 1234, {}), MEGABYTE)


def make_measurements(names: Iterable[str]) -> list[Measurement]:
    """Return a measurement of each model of the catalogue, all different, with long words in every cell."""
    found = []
    for number, model in enumerate(CATALOGUE.select(list(names)), 1):
        series = tuple((float(n), n * 0.1 * number, 2**24 + n * 2**10, 1, 1, 9) for n in range(5))
        found.append(
            vary(
                MEASUREMENT,
                model=model.name,
                family=model.family,
                summary=model.summary,
                answered=1_000 * number,
                histogram=((100.0 * number, 9_000), (4_000.0 * number, 1_000)),
                server_cpu_us=20.0 * number,
                memory_bytes=1234 * 2**20,
                threads=1234,
                series=series,
                verdict=Verdict(Limit.GENERATOR, "the generator used 99% of its core, <b>the server</b> 60% of a core"),
            )
        )
    return found
