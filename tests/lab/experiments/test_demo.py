"""The order of the demo's rows, and which of several measurements stands for a model."""

from collections.abc import Sequence
from dataclasses import replace

from lab.experiments.demo import Demo, choose_typical, order_rows
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.servers.catalogue import Catalogue
from tests.support.made_up import MEASUREMENT, vary

CATALOGUE = Catalogue.load()


def make_rounds(model: str, *costs: float | None) -> list[Measurement]:
    family = CATALOGUE[model].family
    return [vary(MEASUREMENT, model=model, family=family, server_cpu_us=cost) for cost in costs]


def make_demo(rounds: dict[str, Sequence[float | None]], missing: Sequence[str] = ()) -> Demo:
    families = {name: CATALOGUE[name].family for name in rounds}
    return Demo(
        families,
        rounds={name: make_rounds(name, *costs) for name, costs in rounds.items()},
        missing=dict.fromkeys(missing, "it ended"),
    )


def test_rows_are_in_families_with_the_least_cpu_first() -> None:
    costs: dict[str, Sequence[float | None]] = {
        "plain_socket": (90, 91, 92),
        "asyncio_streams": (40, 44, 30),
        "thread_pool": (None, None, None),
        "uvloop_streams": (20, 21, 60),
        "trio_nursery": (50, 50, 50),
        "socketserver_threading": (30, 30, 30),
    }
    rows = [row.model for row in order_rows(make_demo(costs))]
    families = [
        "plain_socket",
        "uvloop_streams",
        "asyncio_streams",
        "trio_nursery",
        "socketserver_threading",
        "thread_pool",
    ]
    assert rows == families
    assert rows[:-1] == [row.model for row in order_rows(make_demo(costs, ["thread_pool"]))]


def test_typical_measurement_is_that_of_the_median_cost_or_the_first_failure() -> None:
    rounds = make_rounds("plain_socket", 3, 1, 2)
    assert choose_typical(rounds).server.cpu_us == 2
    assert choose_typical(make_rounds("plain_socket", None, 1)).server.cpu_us == 1
    for verdict in (Verdict(Limit.DISTURBED, "stopped"), Verdict(Limit.FAILED, "1% failed")):
        bad = replace(rounds[0], verdict=verdict)
        assert choose_typical([rounds[1], bad, rounds[2]]) is bad


def test_figures_are_medians_with_the_lowest_and_the_highest() -> None:
    demo = make_demo({"plain_socket": (3, 1, 2), "thread_pool": (None,)})
    assert demo.costs == {"plain_socket": Estimate(2, 1, 3, 3)}
    demo.rounds["thread_pool"][0] = replace(MEASUREMENT, verdict=Verdict(Limit.GENERATOR, "it was"))
    assert demo.rates["thread_pool"].is_lower_bound
    assert not demo.rates["plain_socket"].is_lower_bound
