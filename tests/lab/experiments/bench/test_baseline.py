"""The baseline: the cost of models relative to a reference model."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lab.base.errors import LabError
from lab.cli.commands.compare import compare
from lab.experiments.bench.baseline import (
    BASELINE_FILE,
    Baseline,
    _ratio,
    find_deviations,
    read_ratios,
    render_baseline,
)
from lab.experiments.bench.findings import Findings, Row, RowKey, read_findings
from lab.experiments.store import Run
from lab.metrics.estimates import Estimate
from lab.servers.catalogue import Catalogue
from tests.support.made_up import MEASUREMENT, vary

COSTS = {"asyncio_streams": 20.0, "twisted_reactor": 30.0, "plain_socket": 10.0}

Measure = Callable[..., Findings]


@pytest.fixture
def measured(bench, make_plan, make_measurement) -> Measure:
    """Store a run with given costs per request, multiplied by the slowness of the machine."""

    def run(costs: dict[str, float] | None = None, *, slow: float = 1.0, **plan: object) -> Findings:
        known = COSTS | (costs or {})
        bench.answer = lambda model, scenario, users, rate: make_measurement(
            users=users, server_cpu_us=known[model] * slow
        )
        asked = make_plan(**plan)
        found = bench.begin(asked)
        bench.measure(found, asked)
        return read_findings(Run.open(found.folder))

    return run


@pytest.fixture
def baseline(measured: Measure, tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    path.write_text(render_baseline(measured()))
    return path


def _compare(baseline: Path, found: Findings, *more: str) -> tuple[int, str]:
    arguments = [str(baseline), str(found.run.folder), "--out", str(found.run.folder.parent.parent), *more]
    done = CliRunner().invoke(compare, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_baseline_has_ratios(baseline: Path) -> None:
    kept = Baseline.load(baseline)
    assert kept.reference == "asyncio_streams"
    assert {case: found.middle for case, found in kept.ratios.items() if case[2] == "closed"} == {
        ("session", "twisted_reactor", "closed"): 1.5,
        ("session", "plain_socket", "closed"): 0.5,
    }
    assert baseline.stat().st_size < 4096


def test_slower_machine_is_no_deviation(baseline: Path, measured: Measure) -> None:
    code, text = _compare(baseline, measured(slow=3.0))
    assert code == 0, text
    assert "0 changed by more than 30%" in text


def test_model_that_costs_more_than_before_is_a_regression(baseline: Path, measured: Measure) -> None:
    dearer = measured({"twisted_reactor": 45.0}, slow=2.0)
    code, text = _compare(baseline, dearer)
    assert code == 1
    assert "twisted_reactor, session, closed: a request costs 2.25 times as much as that of asyncio_streams" in text
    assert "(+50%), a regression" in text
    assert _compare(baseline, dearer, "--threshold", "60%")[0] == 0
    assert _compare(baseline, measured({"twisted_reactor": 38.0}))[0] == 0
    assert _compare(baseline, measured({"twisted_reactor": 38.0}), "--threshold", "0%")[0] == 1
    code, text = _compare(baseline, measured({"twisted_reactor": 15.0}))
    assert code == 0
    assert "(-50%)" in text


def test_reference_that_costs_more_is_detected(baseline: Path, measured: Measure) -> None:
    code, text = _compare(baseline, measured({"asyncio_streams": 40.0}))
    assert code == 1
    assert "asyncio_streams itself costs more" in text


def test_model_that_is_no_longer_measured_is_a_regression(baseline: Path, measured: Measure, bench) -> None:
    bench.failing = {"plain_socket"}
    code, text = _compare(baseline, measured())
    assert code == 1
    assert "plain_socket, session, closed: no longer measured: 1 of 6 conformance tests fail" in text


def test_committed_baseline_is_the_default(measured: Measure) -> None:
    kept = Baseline.load(BASELINE_FILE)
    costs = {model: 20.0 * found.middle for (_, model, _), found in kept.ratios.items()}
    # A run with exactly the costs of the committed baseline, and one with twice those costs.
    plan = {"models": (kept.reference, *costs), "levels": (16,), "modes": ("closed",)}
    code, text = _compare(Path("baseline"), measured(costs | {kept.reference: 20.0}, **plan))
    assert code == 0, text
    code, _ = _compare(
        Path("baseline"), measured({name: 2 * cost for name, cost in costs.items()} | {kept.reference: 20.0}, **plan)
    )
    assert code == 1
    assert text.startswith(f"baseline: {Baseline.load(BASELINE_FILE).made['date']}")
    assert "costs relative to asyncio_streams" in text


def test_models_outside_the_plan_are_ignored(baseline: Path, measured: Measure) -> None:
    code, text = _compare(baseline, measured(models=("asyncio_streams", "twisted_reactor"), modes=("closed",)))
    assert code == 0, text


def test_no_common_case_is_an_error(baseline: Path, measured: Measure) -> None:
    with pytest.raises(LabError, match=r"no case in common.*asyncio_streams under session"):
        list(find_deviations(Baseline.load(baseline), measured(workloads=("churn",)), 0.3))


def test_baseline_needs_a_control(measured: Measure) -> None:
    with pytest.raises(LabError, match="no baseline: it has no control server"):
        render_baseline(measured(control=None))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no baseline"),
        ("{}", "no baseline: 'schema'"),
        ('{"schema": 0}', "export it again"),
        ("[]", "no baseline"),
        ("\xff", "no baseline: 'utf-8' codec"),
    ],
)
def test_damaged_baseline_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(LabError, match="does not exist"):
        Baseline.load(path)
    path.write_text(text, encoding="latin-1")  # the last one is no UTF-8
    with pytest.raises(LabError, match=says):
        Baseline.load(path)


def test_committed_baseline_has_known_models() -> None:
    kept = Baseline.load(BASELINE_FILE)
    names = {kept.reference, *(model for _, model, _ in kept.ratios)}
    assert names <= set(Catalogue.load().names)
    assert len(kept.ratios) >= 8
    assert all(found.low <= found.middle <= found.high for found in kept.ratios.values())
    assert json.loads(BASELINE_FILE.read_text())["made"]["commit"]


def test_ratio_is_against_the_mean_of_both_servers_of_the_reference(bench, make_plan, make_measurement) -> None:
    # The reference costs 20, its control 30 µs: 50 µs are twice their mean. In the second round the control was
    # not measured: 50 / 20. In the third the model was not.
    plan = make_plan(models=("asyncio_streams", "twisted_reactor"), modes=("closed",))
    run = bench.begin(plan)
    costs = {
        "asyncio_streams": (20.0, 20.0, 20.0),
        "control-asyncio_streams": (30.0, None, 30.0),
        "twisted_reactor": (50.0, 50.0, None),
    }
    for model, each in costs.items():
        for number, cost in enumerate(each, 1):
            found = make_measurement(model=model, server_cpu_us=cost)
            run.keep(f"round-{number}/session/{model}/closed", {"measurement": found.as_json()})
    ratios = read_ratios(read_findings(run), "asyncio_streams")
    assert {case: (found.low, found.high, found.repeats) for case, found in ratios.items()} == {
        ("session", "twisted_reactor", "closed"): (2.0, 2.5, 2)
    }


def test_baseline_file_has_ratios_of_four_digits(measured: Measure) -> None:
    # 10 / 30 is 0.3333...
    found = json.loads(render_baseline(measured({"asyncio_streams": 30.0, "plain_socket": 10.0})))
    assert found["ratios"]["session"]["closed"]["plain_socket"] == [0.3333, 0.3333, 0.3333]
    assert found["made"]["rounds"] == 3


def test_baseline_file_has_the_interval_and_the_facts_of_the_run(bench, make_plan, make_measurement) -> None:
    plan = make_plan(models=("asyncio_streams", "twisted_reactor"), modes=("closed",), seconds=0.25)
    run = bench.begin(plan)
    for number, cost in enumerate((20.0, 30.0, 60.0), 1):
        for model, each in (("asyncio_streams", 20.0), ("twisted_reactor", cost)):
            found = make_measurement(model=model, server_cpu_us=each)
            run.keep(f"round-{number}/session/{model}/closed", {"measurement": found.as_json()})
    names = ("date", "commit", "processor", "system", "backend", "engine", "servers", "cores")
    facts = {name: f"the {name}" for name in names}
    made = {**facts, "run": run.started, "rounds": 3, "seconds": 0.25}
    stored = Run(run.folder, {**run.facts, "environment": {**facts, "libc": "not kept"}})
    text = render_baseline(read_findings(stored))
    assert json.loads(text) == {
        "schema": 1,
        "made": made,
        "reference": "asyncio_streams",
        "ratios": {"session": {"closed": {"twisted_reactor": [1.5, 1.0, 3.0]}}},
    }
    path = run.folder / "baseline.json"
    path.write_text(text)
    assert Baseline.load(path) == Baseline.of(read_findings(stored))


def test_change_of_exactly_the_threshold_is_no_deviation(measured: Measure) -> None:
    kept = Baseline.of(measured())
    dearer = measured({"twisted_reactor": 45.0})
    # 2.25 / 1.5 - 1 = 0.5, in a closed loop and at the fixed rate.
    assert [item.is_regression for item in find_deviations(kept, dearer, 0.5)] == []
    assert [item.is_regression for item in find_deviations(kept, dearer, 0.499)] == [True, True]


@pytest.mark.parametrize(
    ("cheaper", "ratio", "is_moved"),
    # 1 / 1.3 is 0.769. Of eight models, seven are more than three quarters, and six are not.
    [(7, 0.76, True), (7, 0.78, False), (6, 0.5, False), (8, 0.5, True)],
)
def test_reference_costs_more_if_three_quarters_of_the_models_cost_less(
    monkeypatch: pytest.MonkeyPatch, cheaper: int, ratio: float, is_moved: bool
) -> None:
    def make(*ratios: float) -> dict[RowKey, Estimate]:
        return {RowKey("session", f"m{n}", "closed"): Estimate(each, each, each, 3) for n, each in enumerate(ratios)}

    monkeypatch.setattr(
        "lab.experiments.bench.baseline.read_ratios", lambda *_: make(*[ratio] * cheaper, *[1.0] * (8 - cheaper))
    )
    run: Any = SimpleNamespace(noise=lambda figure: None)
    found = [item for item in find_deviations(Baseline({}, "m", make(*[1.0] * 8)), run, 0.3) if item.is_regression]
    said = (
        f"relative to m, most models cost {ratio:.2f} times their baseline, or less: m itself costs more, a regression"
    )
    assert [item.text for item in found] == [said] * is_moved


def test_round_whose_reference_has_no_cost_has_no_ratio() -> None:
    def row(cost: float | None) -> Row:
        return Row("session", "m", "closed", (), {1: vary(MEASUREMENT, server_cpu_us=cost)}, ())

    assert [_ratio(row(50.0), [row(cost)], 1) for cost in (20.0, None, 0.0)] == [2.5, None, None]


def test_deviation_has_the_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is in the middle of its interval."""

    def find(before: Estimate, after: Estimate) -> list[str]:
        key = RowKey("session", "a", "closed")
        monkeypatch.setattr("lab.experiments.bench.baseline.read_ratios", lambda *_: {key: after})
        run: Any = SimpleNamespace(noise=lambda figure: None)
        return [item.text for item in find_deviations(Baseline({}, "m", {key: before}), run, 0.3)]

    assert find(Estimate(1.0, 0.5, 1.1, 3), Estimate(2.0, 1.5, 2.1, 3)) == [
        "a, session, closed: a request costs 2.00 times as much as that of m, baseline 1.00 (+100%), a regression"
    ]
    # The intervals overlap.
    assert find(Estimate(1.0, 0.5, 1.5, 3), Estimate(0.7, 0.65, 0.75, 3)) == [
        "relative to m, most models cost 0.70 times their baseline, or less: m itself costs more, a regression"
    ]


def test_change_within_the_noise_is_no_deviation(bench, make_plan, make_measurement) -> None:
    def keep(costs: dict[str, float]) -> Findings:
        plan = make_plan(models=("asyncio_streams", "twisted_reactor"), modes=("closed",))
        run = bench.begin(plan)
        for model, cost in costs.items():
            for number in (1, 2, 3):
                found = make_measurement(model=model, server_cpu_us=cost)
                run.keep(f"round-{number}/session/{model}/closed", {"measurement": found.as_json()})
        return read_findings(run)

    plain = {"asyncio_streams": 20.0, "control-asyncio_streams": 20.0, "twisted_reactor": 20.0}
    kept = Baseline.of(keep(plain))
    # From 1.0 to 1.5 times the reference.
    assert len(list(find_deviations(kept, keep(plain | {"twisted_reactor": 30.0}), 0.3))) == 1
    # The two servers of the reference are 10 of 20 µs apart: 50 %.
    noisy = {"asyncio_streams": 15.0, "control-asyncio_streams": 25.0, "twisted_reactor": 30.0}
    assert list(find_deviations(kept, keep(noisy), 0.3)) == []


def test_deviations_are_found_after_a_missing_model(baseline: Path, measured: Measure, bench) -> None:
    bench.failing = {"plain_socket"}
    found = measured({"twisted_reactor": 60.0})
    texts = [item.text for item in find_deviations(Baseline.load(baseline), found, 0.3)]
    assert any("plain_socket, session, closed: no longer measured" in text for text in texts)
    assert any("twisted_reactor, session, closed: a request costs 3.00 times" in text for text in texts)


def test_run_of_one_model_has_no_baseline(measured: Measure) -> None:
    with pytest.raises(LabError, match="or no other model"):
        render_baseline(measured(models=("asyncio_streams",)))


def test_run_is_found_by_its_time_in_the_results_folder(baseline: Path, measured: Measure) -> None:
    found = measured({"twisted_reactor": 60.0})
    root = found.run.folder.parent.parent
    done = CliRunner().invoke(compare, [str(baseline), found.run.folder.name, "--out", str(root)])
    assert done.exit_code == 1
    assert "a regression" in done.output
