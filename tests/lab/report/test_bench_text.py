"""The report of `lab bench` in text: each figure in its column and unit, and each sentence where it is true."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from lab.experiments.bench.findings import CrossCheck, Findings, GeneratorLimit, Row, RowKey
from lab.experiments.bench.plan import Plan
from lab.experiments.bench.sweep import STOP_RULE
from lab.experiments.theory import Server
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.report.bench_text import (
    Advice,
    describe_additional_rounds,
    falls_short,
    make_answers,
    make_deviations,
    make_environment,
    make_lines,
    make_reliability,
    print_report,
    render_markdown,
)
from tests.support.approx import about
from tests.support.made_up import MEASUREMENT, vary

LOOP = Server("loop", None, 12_000, False)
PLAN = Plan(("a", "b", "c"), ("session",), (), (4, 16), ("closed", "fixed"), 3, 2.5, 0.5, 7, None, None)
KIB = 1024


class FakeRun(SimpleNamespace):
    """What the report reads of a run."""

    def path_of(self, key: str) -> str:
        return f"steps/{key}.json"


def make_row(
    model: str,
    rates: Sequence[int],
    costs: Sequence[float],
    mode: str = "closed",
    workload: str = "session",
    **more: Any,
) -> Row:
    """Return a row with a round for each rate and cost. Its times differ between the rounds, by 100 µs and 1000 µs."""
    found = {
        number: vary(
            MEASUREMENT,
            model=model,
            answered=rate,
            server_cpu_us=cost,
            memory_bytes=number * 100 * KIB,
            summary=f"of {model}",
            histogram=((100.0 * number, 95), (1000.0 * number, 5)),
            **more,
        )
        for number, (rate, cost) in enumerate(zip(rates, costs, strict=True), 1)
    }
    keys = tuple(f"round-{number}/{workload}/{model}/{mode}" for number in found)
    return Row(workload, model, mode, keys, found, ())


def make_findings(
    rows: Sequence[Row], plan: Plan = PLAN, environment: Mapping[str, str | None] | None = None, **changes: Any
) -> Findings:
    servers = {row.model: asdict(LOOP) for row in rows if row.found}
    run: Any = FakeRun(
        facts={"models": servers, "environment": environment or {}},
        started="2026-11-29T090000Z",
        is_finished=True,
        end={},
    )
    findings = Findings(run, plan, {RowKey(row.workload, row.model, row.mode): row for row in rows}, {}, {}, (), None)
    return replace(findings, **changes)


def fail(row: Row, **failures: int) -> Row:
    """Return the row with failures of these kinds in its first round."""
    found = dict(row.found)
    found[1] = vary(found[1], failures={name.replace("_", " "): count for name, count in failures.items()})
    return replace(row, found=found)


def bound(row: Row, *limits: Limit) -> Row:
    """Return the row with these limits, one for each round."""
    items = zip(row.found.items(), limits, strict=True)
    verdicts = {number: replace(item, verdict=Verdict(limit, f"the {limit}")) for (number, item), limit in items}
    return replace(row, found=verdicts)


# a is the fastest, b the cheapest, and c far behind. At the fixed rate the costs are others.
A = make_row("a", (9_000, 9_200, 9_100), (50.0, 52.0, 51.0))
B = make_row("b", (5_000, 5_100, 5_050), (40.0, 42.0, 41.0))
C = make_row("c", (400, 420, 410), (900.0, 920.0, 910.0))


def list_answers(rows: Sequence[Row], **changes: Any) -> list[tuple[str, str]]:
    return [(each.kind, each.text) for each in make_answers(make_findings(rows, **changes), "session")]


def test_row_has_the_figures_of_its_rounds_in_their_columns() -> None:
    fixed = make_row("a", (100, 100, 100), (60.0, 62.0, 61.0), "fixed")
    levels = {
        users: vary(MEASUREMENT, users=users, server_cpu_us=20.0 * users, memory_bytes=(90 + users) * KIB)
        for users in (4, 16)
    }
    (line,) = make_lines(make_findings([A, fixed], sweeps={("session", "a"): levels}), "session")
    cells = {name: (cell.value, cell.text) for name, cell in line.cells.items()}
    assert cells == {
        "model": ("a", "a"),
        "rank": (1, "1"),
        "requests/s": (9100.0, "9.10k [9.00k 9.20k]"),
        # Of the lowest level, whose requests take 80 µs.
        "theory": (about(12_500), "≤ 12.5k"),
        "users": (16, "16"),
        # Medians of 100, 200 and 300, and of 1000, 2000 and 3000; without an interval.
        "p50 µs": (200.0, "200"),
        "p99 µs": (2000.0, "2\u202f000"),
        # At the fixed rate.
        "CPU µs/req": (61.0, "61.0 [60.0 62.0]"),
        # The highest.
        "memory": (300 * KIB, line.cells["memory"].text),
        # 12 KiB for 12 more connections.
        "KiB/conn": (KIB, "1"),
        "verdict": ("server-bound", "server-bound"),
    }
    assert line.cells["verdict"].note == "the server used 99% of a core"
    assert line.cells["theory"].note.startswith("one loop, blocked while a request computes: 1/S with S = 80.0 µs")
    rounds = [f"round-{number}/session/a/{mode}" for mode in ("closed", "fixed") for number in (1, 2, 3)]
    assert line.keys == (*rounds, "sweep/session/a/4")


def test_row_without_a_fixed_rate_has_its_own_cost_and_keys() -> None:
    (line,) = make_lines(make_findings([A]), "session")
    assert (line.cells["CPU µs/req"].text, line.keys) == ("51.0 [50.0 52.0]", A.keys)


def test_rows_are_in_the_order_of_their_rate_and_unknown_ones_come_last() -> None:
    lost = Row("session", "lost", "closed", ("round-1/session/lost/closed",), {}, ("it ended",))
    lines = make_lines(make_findings([lost, C, B, A]), "session")
    assert [(line.model, line.cells["rank"].text) for line in lines] == [
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("lost", "–"),  # noqa: RUF001
    ]
    unknown = {name: (cell.value, cell.text) for name, cell in lines[-1].cells.items() if cell.value is None}
    assert unknown == dict.fromkeys(
        ("rank", "requests/s", "theory", "users", "p50 µs", "p99 µs", "CPU µs/req", "memory", "KiB/conn"),
        (None, "–"),  # noqa: RUF001
    )
    assert (lines[-1].cells["verdict"].text, lines[-1].cells["verdict"].note) == ("not measured", "it ended")
    assert lines[-1].deviation == ""


def test_verdict_counts_its_rounds_and_names_failures_and_missing_ones() -> None:
    row = bound(A, Limit.SERVER, Limit.GENERATOR, Limit.SERVER)
    row = replace(row, keys=(*row.keys, "round-4/session/a/closed", "round-5/session/a/closed"), failures=("x", "y"))
    (line,) = make_lines(make_findings([row]), "session")
    verdict = line.cells["verdict"]
    assert verdict.text == "server-bound (2 of 3), generator-bound (1 of 3)"
    assert verdict.note == f"the {Limit.SERVER}; 2 of 5 could not be measured: x"
    # 41 of 27,341.
    (line,) = make_lines(make_findings([fail(A, timeout=40, wrong_bytes=1)]), "session")
    assert line.cells["verdict"].text == "0.15% FAILED, server-bound"
    assert line.cells["verdict"].note.endswith("; failures: 40 × timeout; 1 × wrong bytes")  # noqa: RUF001


def test_few_failures_of_many_requests_are_not_shown_as_none() -> None:
    row = fail(make_row("a", (90_000, 90_000, 90_000), (50.0, 50.0, 50.0)), timeout=1)
    (line,) = make_lines(make_findings([row]), "session")
    assert line.cells["verdict"].text == "0.00037% FAILED, server-bound"
    assert ("avoid", "Avoid: a (0.00037% of its replies failed).") in list_answers([row])


def test_deviation_from_theory_is_marked_and_explained() -> None:
    """100 µs allow 10,000 requests/s. b makes 12,100, and c 4,000, though nothing is known of a cause."""
    rows = [make_row(name, (rate,) * 3, (100.0,) * 3) for name, rate in (("a", 9_000), ("b", 12_100), ("c", 4_000))]
    lines = {line.model: line for line in make_lines(make_findings(rows), "session")}
    assert [(name, lines[name].cells["theory"].text) for name in "abc"] == [
        ("a", "≤ 10.0k"),
        ("b", "≤ 10.0k !"),
        ("c", "≤ 10.0k !"),
    ]
    theory = lines["b"].cells["theory"].note
    assert list(make_deviations(list(lines.values()))) == [
        f"! b: 21% above theory: more of it ran in parallel than it declares. Theory: {theory}.",
        f"! c: 40% of what theory allows: the server used 99% of a core. Theory: {lines['c'].cells['theory'].note}.",
    ]


def test_best_is_the_fastest_that_is_also_the_cheapest() -> None:
    assert list_answers([A, B, C]) == [
        (
            "avoid",
            "Avoid: c (4.5% of the best rate: one loop, blocked while a request computes: 1/S with S = 910 µs of CPU).",
        ),
        ("result", "Highest rate: a."),
        ("result", "Least CPU per request: b."),
    ]
    cheap = make_row("a", (9_000, 9_200, 9_100), (30.0, 32.0, 31.0))
    assert list_answers([cheap, B]) == [
        ("best", "Best: a (no model is measurably faster or cheaper)."),
        ("result", "Highest rate: a."),
        ("result", "Least CPU per request: a."),
    ]


def test_models_without_a_difference_tie() -> None:
    same = make_row("b", (9_050, 9_150, 9_100), (50.5, 51.5, 51.0))
    assert list_answers([A, same]) == [
        ("best", "Best: any of them (no difference beyond the noise)."),
        ("result", "Highest rate: b, a (no difference beyond the noise)."),
        ("result", "Least CPU per request: a, b."),
    ]
    ranks = [(line.model, line.cells["rank"].text) for line in make_lines(make_findings([A, same, C]), "session")]
    assert ranks == [("b", "1-2"), ("a", "1-2"), ("c", "3")]
    assert list_answers([A, same, C])[0] == ("best", "Best: b, a (no model is measurably faster or cheaper).")


def test_costs_are_those_at_the_fixed_rate_if_it_was_measured() -> None:
    fixed = [make_row(model, (100,) * 3, (cost,) * 3, "fixed") for model, cost in (("a", 20.0), ("b", 30.0))]
    assert list_answers([A, B, *fixed])[-1] == ("result", "Least CPU per request at 12000 requests/s: a.")


def test_model_with_failures_is_not_best() -> None:
    cheap = make_row("a", (9_000, 9_200, 9_100), (30.0, 32.0, 31.0))
    answers = list_answers([fail(cheap, timeout=273), B])
    # 273 of 27,573.
    assert answers[0] == ("avoid", "Avoid: a (0.99% of its replies failed).")
    assert not [text for kind, text in answers if kind == "best"]


@pytest.mark.parametrize(("rate", "is_best"), [(4_550, True), (4_549, False)])
def test_lower_bound_below_half_of_the_best_rate_is_not_best(rate: int, *, is_best: bool) -> None:
    low = bound(make_row("low", (rate,) * 3, (10.0,) * 3), *[Limit.GENERATOR] * 3)
    answers = list_answers([A, low])
    assert (("best", "Best: low (no model is measurably faster or cheaper).") in answers) is is_best
    assert ("result", "Lower bounds, since the server was not the limit: low.") in answers
    # It may be the fastest.
    assert not [text for kind, text in answers if kind == "avoid"]


@pytest.mark.parametrize(("highest", "is_avoided"), [(4_550, False), (4_549, True)])
def test_model_whose_interval_ends_below_half_of_the_best_rate_is_avoided(highest: int, *, is_avoided: bool) -> None:
    slow = make_row("slow", (4_000, 4_100, highest), (50.0,) * 3)
    answers = [text for kind, text in list_answers([A, slow]) if kind == "avoid"]
    reason = "one loop, blocked while a request computes: 1/S with S = 50.0 µs of CPU"
    assert answers == ([f"Avoid: slow (45% of the best rate: {reason})."] if is_avoided else [])


def test_model_that_theory_does_not_know_is_avoided_for_its_verdict() -> None:
    findings = make_findings([A, C])
    del findings.run.facts["models"]["c"]
    (avoid,) = [each.text for each in make_answers(findings, "session") if each.kind == "avoid"]
    assert avoid == "Avoid: c (4.5% of the best rate: the server used 99% of a core)."


def test_workload_without_a_measurement_has_no_answer() -> None:
    lost = Row("session", "a", "closed", (), {}, ("it ended",))
    assert list(make_answers(make_findings([lost]), "session")) == [Advice("result", "Nothing could be measured.")]


def test_rate_of_98_percent_counts_as_reached() -> None:
    rows = {rate: make_row("a", (rate,) * 3, (50.0,) * 3, "fixed") for rate in (11_760, 11_759)}
    assert [falls_short(row, 12_000.0) for row in rows.values()] == [False, True]
    # In most rounds.
    assert not falls_short(make_row("a", (11_000, 11_760, 12_000), (50.0,) * 3, "fixed"), 12_000.0)
    assert not falls_short(Row("session", "a", "fixed", (), {}, ()), 12_000.0)


def list_reliability(rows: Sequence[Row] = (A,), **changes: Any) -> list[str]:
    return list(make_reliability(make_findings(rows, **changes)))


def test_noise_is_that_of_the_control_server() -> None:
    """The control's rate is 1 % lower in every round, and its requests take 2 % more: relative to the middle."""
    control = make_row("control-a", (8_910, 9_108, 9_009), (51.0, 53.04, 52.02))
    said = list_reliability([A, control], plan=replace(PLAN, control="a"))
    assert said[0] == (
        "Noise: two servers of a, measured like two models, differ by requests/s 1.0%, CPU per request 2.0%, p50 0.0%, "
        "p99 0.0%."
    )
    assert list_reliability()[0] == "Noise: not known, since the run has no control server."


OURS, THEIRS = Estimate(1000.0, 990.0, 1010.0, 3), Estimate(2000.0, 1990.0, 2010.0, 3)
OUR_COST, THEIR_COST = Estimate(40.0, 39.0, 41.0, 3), Estimate(50.0, 49.0, 51.0, 3)
CHECK = CrossCheck("ping", "a", "wrk", OURS, THEIRS, OUR_COST, THEIR_COST, None)
RATES = "Independent check of a, ping: 1.00k [990 1.01k] requests/s here, 2.00k [1.99k 2.01k] by wrk"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (
            CHECK,
            f"{RATES} (CPU µs of the server for each: 40.0 [39.0 41.0], and 50.0 [49.0 51.0]): THEY DISAGREE: wrk gets "
            "more, so the rates here are too low.",
        ),
        (
            replace(CHECK, our_cost=None),
            f"{RATES}: THEY DISAGREE: wrk gets more, so the rates here are too low.",
        ),
        (
            replace(CHECK, their_cost=None),
            f"{RATES}: THEY DISAGREE: wrk gets more, so the rates here are too low.",
        ),
        (
            replace(CHECK, theirs=OURS, our_cost=None),
            "Independent check of a, ping: 1.00k [990 1.01k] requests/s here, 1.00k [990 1.01k] by wrk: they agree.",
        ),
        (replace(CHECK, missing="no image"), "Independent check of a by wrk: not made: no image."),
    ],
)
def test_independent_check_shows_both_figures(check: CrossCheck, said: str) -> None:
    assert said in list_reliability(cross_checks=(check,))


def test_independent_check_is_compared_with_the_noise_of_the_run() -> None:
    slower = replace(CHECK, theirs=Estimate(500.0, 495.0, 505.0, 3), our_cost=None)
    (said,) = [text for text in list_reliability(cross_checks=(slower,)) if text.startswith("Independent")]
    assert said.endswith(
        " by wrk: they differ beyond the noise: wrk is the slower client, or the rates here are too high; the CPU per "
        "request, which no client can change, shows which."
    )
    # The control's rate is half of its model's: 4,500 are 67 % of their middle, and 2,000 is within that of 1,000.
    control = make_row("control-a", (4_500, 4_600, 4_550), (50.0, 52.0, 51.0))
    (said,) = [
        text
        for text in list_reliability([A, control], plan=replace(PLAN, control="a"), cross_checks=(CHECK,))
        if text.startswith("Independent")
    ]
    assert said.endswith(": they agree.")


def test_limit_of_the_generator_has_its_cores_and_its_rounds() -> None:
    limits = bound(A, Limit.GENERATOR, Limit.SERVER, Limit.GENERATOR).verdicts
    limit = GeneratorLimit("peer_redis", Estimate(50_000.0, 49_000.0, 51_000.0, 3), 1.234, limits)
    said = (
        "The limit of the load generator: 50.0k [49.0k 51.0k] PINGs/s from peer_redis, with {} cores (generator-bound "
        "in 2, server-bound in 1 of 3). A rate near this limit is that of the generator."
    )
    assert said.format("1.23") in list_reliability(generator_limit=limit)
    assert said.format("–") in list_reliability(generator_limit=replace(limit, generator_cores=None))  # noqa: RUF001


def test_missing_results_are_named() -> None:
    fixed = [make_row(model, (rate,) * 3, (50.0,) * 3, "fixed") for model, rate in (("a", 12_000), ("b", 11_000))]
    findings = make_findings([A, B, *fixed], unsound={"c": "3 tests fail"})
    run: Any = FakeRun(**vars(findings.run) | {"is_finished": False, "end": {"own_cores": 0.1234}})
    findings = replace(findings, run=run)
    said = list(make_reliability(findings))
    assert (
        "Of the 12.0k session requests/s at which CPU per request is compared, b did not reach it; their cost is that "
        "at their own maximum."
    ) in said
    assert "Not measured: c: 3 tests fail." in said
    assert said[-3:] == [
        "This run was interrupted; the report has its measurements so far. Continue with: "
        "lab bench --resume 2026-11-29T090000Z",
        "Measuring itself took 12.3% of a core: meters, orchestration, Docker clients.",
        f"The sweep: {STOP_RULE}",
    ]
    assert list_reliability(plan=replace(PLAN, levels=(16,)))[-1] == (
        "No sweep: the same number of connections for all."
    )


def test_unknown_fact_of_the_environment_is_said() -> None:
    findings = make_findings([], environment={"commit": None, "system": "Linux"})
    assert make_environment(findings) == {"commit": "not known", "system": "Linux", "load generator": "not known"}


def test_rounds_of_a_mode_that_has_more_are_named() -> None:
    assert describe_additional_rounds(PLAN) == ""
    assert describe_additional_rounds(replace(PLAN, fixed_rounds=3)) == ""
    assert describe_additional_rounds(replace(PLAN, fixed_rounds=8)) == ", fixed in 8"


# A workload in the middle has no row.
WORKLOADS = ("session", "ping", "churn")
SECOND = [make_row("a", (50, 52, 51), (70.0, 72.0, 71.0), workload="churn")]
MARKED = make_row("b[bold]", (12_100,) * 3, (100.0,) * 3)


def test_terminal_has_a_table_with_its_answers_for_each_workload() -> None:
    findings = make_findings(
        [A, MARKED, *SECOND], plan=replace(PLAN, workloads=WORKLOADS), unsound={"c[bold]": "3 tests fail"}
    )
    printed = io.StringIO()
    print_report(findings, Console(width=200, file=printed))
    lines = printed.getvalue().splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith(WORKLOADS)]
    assert [lines[number] for number in heads] == [
        "session: connect, 50 PINGs one after the other, close",
        "churn: connect, one PING, close",
    ]
    # What looks like markup is text.
    assert lines[heads[0] + 1] == "Highest rate: b[bold]."
    assert lines[heads[0] + 2] == "Least CPU per request: a."
    assert lines[heads[0] + 4].split()[:4] == ["model", "rank", "requests/s", "theory"]
    assert [line.split()[:5] for line in lines[heads[0] + 6 : heads[0] + 8]] == [
        ["b[bold]", "1", "12.1k", "[12.1k", "12.1k]"],
        ["a", "2", "9.10k", "[9.00k", "9.20k]"],
    ]
    assert lines[heads[0] + 9].startswith("! b[bold]: 21% above theory: ")
    assert lines[heads[1] + 1] == "Best: any of them (no difference beyond the noise)."
    assert "Noise: not known, since the run has no control server." in lines
    assert "Not measured: c[bold]: 3 tests fail." in lines


def test_table_on_a_narrow_terminal_wraps_only_its_verdict() -> None:
    row = bound(A, Limit.SERVER, Limit.GENERATOR, Limit.WAITING)
    printed = io.StringIO()
    print_report(make_findings([row]), Console(width=130, file=printed))
    lines = printed.getvalue().splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith((" a ", "a "))]
    assert "≥ 9.10k" in lines[number]
    assert "51.0 [50.0 52.0]" in lines[number]
    said = " ".join(" ".join(lines[number : number + 3]).split())
    assert said.endswith("server-bound (1 of 3), generator-bound (1 of 3), waiting (1 of 3)")
    narrow = io.StringIO()
    print_report(make_findings([row]), Console(width=100, file=narrow))
    assert "≥ 9.10k  ≤ 19.6k     16     200   2\u202f000  51.0 [50.0 52.0]" in narrow.getvalue()


def test_markdown_has_the_tables_with_their_reasons_and_links() -> None:
    plan = replace(PLAN, workloads=WORKLOADS, fixed_rounds=5)
    lost = Row("session", "lost", "closed", ("round-1/session/lost/closed",), {}, ("it ended",))
    text = render_markdown(make_findings([A, MARKED, lost, *SECOND], plan=plan)).splitlines()
    assert text[0] == "# Benchmark: 2026-11-29T090000Z"
    assert [line for line in text if line.startswith("## ")] == [
        "## session: connect, 50 PINGs one after the other, close",
        "## churn: connect, one PING, close",
        "## Reliability",
        "## Environment",
    ]
    begin = text.index("## session: connect, 50 PINGs one after the other, close")
    assert text[begin + 2 : begin + 4] == ["Highest rate: b[bold].  ", "Least CPU per request: a.  "]
    head, line, *rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in text[begin + 5 : begin + 10]]
    assert head == [
        *("model", "rank", "requests/s", "theory", "users", "p50 µs", "p99 µs", "CPU µs/req", "memory", "KiB/conn"),
        *("verdict", "reason", "theory", "raw"),
    ]
    assert line == ["---"] * 14
    links = " ".join(f"[{number}](steps/round-{number}/session/MODEL/closed.json)" for number in (1, 2, 3))
    assert [(row[0], row[11], row[13]) for row in rows] == [
        ("b[bold]", "the server used 99% of a core", links.replace("MODEL", "b[bold]")),
        ("a", "the server used 99% of a core", links.replace("MODEL", "a")),
        ("lost", "it ended", "[1](steps/round-1/session/lost/closed.json)"),
    ]
    assert rows[1][12].startswith("one loop, blocked while a request computes: 1/S with S = ")
    assert rows[2][12] == "–"  # noqa: RUF001
    assert text[begin + 11].startswith("* ! b[bold]: 21% above theory: ")
    assert "* Noise: not known, since the run has no control server." in text
    assert "* load generator: not known" in text
    assert text[-1].startswith(
        "3 rounds of 2.5 s after 0.5 s of warm-up, seed 7, in the modes closed, fixed, fixed in 5. `[low high]` is "
    )
    # The answers come first, in characters; the workload without a row has none.
    answers = [line for line in text[:begin] if line.startswith("**")]
    assert [line.partition(": ")[0] for line in answers] == ["**session**", "**churn**"]
    assert answers[0].startswith("**session**: best: **b[bold]** (")
