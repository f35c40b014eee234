"""The page of the demo: ties are ties, and the answer names the cheapest and the most expensive model."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from lab.experiments.conformance.results import ModelResult
from lab.experiments.demo import Demo
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.report.cells import Cell
from lab.report.charts.chart import STYLE
from lab.report.charts.palette import DARK, LIGHT, Tone, make_variables
from lab.report.demo_files import describe_load, explain_further_loads, make_captions, warn_of_hypervisor, write
from lab.report.demo_page import _make_row, render
from lab.report.html import load_template
from lab.report.measurement_charts import Comparison
from tests.support.made_up import MEASUREMENT, vary

FAMILIES = {"uvloop": "loop", "asyncio": "loop", "forking": "process", "redis": "peer"}
ROWS = [vary(MEASUREMENT, model=name, family=family, summary="pays") for name, family in FAMILIES.items()]
COSTS = {
    "uvloop": Estimate(20, 18, 22, 3),
    "asyncio": Estimate(21, 19, 23, 3),
    "forking": Estimate(150, 140, 160, 3),
    "redis": Estimate(5, 5, 5, 3),
}


def read_costs(rows: list[Measurement], costs: Mapping[str, Estimate]) -> list[str]:
    above = [None, *rows]
    return [_make_row(row, costs, above[number], None, ())["CPU µs/req"].text for number, row in enumerate(rows)]


def test_tie_with_the_row_above_is_marked_within_a_family() -> None:
    assert read_costs(ROWS, COSTS) == ["20.0", "≈ 21.0", "150", "5.00"]
    assert read_costs(ROWS, COSTS | {"asyncio": Estimate(25, 23, 26, 3)}) == ["20.0", "25.0", "150", "5.00"]
    # A process that costs as much as the loop above it is no tie of its family.
    assert read_costs(ROWS, COSTS | {"forking": Estimate(22, 19, 23, 3)})[2] == "22.0"
    assert _make_row(ROWS[0], COSTS, None, None, ())["CPU µs/req"].value == 20
    # A single measurement cannot say whether it ties.
    twice, once = (read_costs(ROWS, {name: replace(cost, repeats=n) for name, cost in COSTS.items()}) for n in (2, 1))
    assert (twice[1], once[1]) == ("≈ 21.0", "21.0")
    assert read_costs(ROWS[:1], {}) == ["–"]  # noqa: RUF001


def test_tones_show_the_least_with_its_ties_and_the_most_of_our_models() -> None:
    def choose_tones(rows: list[Measurement], costs: Mapping[str, Estimate] = COSTS) -> dict[str, Tone]:
        return Comparison(rows, costs, {}).tones

    tones = choose_tones(ROWS)
    assert tones == {"uvloop": Tone.BLUE, "asyncio": Tone.BLUE, "forking": Tone.ORANGE, "redis": Tone.GREY}
    assert set(choose_tones(ROWS[:2]).values()) == {Tone.BLUE}
    assert set(choose_tones(ROWS[:1]).values()) == {Tone.GREY}
    # The least is that of the lowest median: c ties with the lowest end of a, but not with b.
    costs = (Estimate(20, 10, 30, 3), Estimate(15, 14, 21, 3), Estimate(25, 24, 26, 3))
    uneven = dict(zip(FAMILIES, costs, strict=False))
    assert list(choose_tones(ROWS[:3], uneven).values()) == [Tone.BLUE, Tone.BLUE, Tone.ORANGE]
    # Single windows that are near each other tie.
    single = {name: Estimate(cost, cost, cost, 1) for name, cost in zip(FAMILIES, (20, 24.9, 25), strict=False)}
    assert list(choose_tones(ROWS[:3], single).values()) == [Tone.BLUE, Tone.BLUE, Tone.ORANGE]


def test_answer_names_the_least_and_the_most_with_the_reason() -> None:
    assert Comparison(ROWS, COSTS, {}).make_answer() == {
        "best": "uvloop, asyncio",
        "why_best": "20.0 µs, no clear difference",
        "worst": "forking",
        "why_worst": "7.5 times as much (pays)",
    }
    assert Comparison(ROWS[:2], COSTS, {}).make_answer() == {}


def test_loads_from_which_a_hypervisor_took_cores_are_counted() -> None:
    def steal(*shares: float) -> Measurement:
        return vary(MEASUREMENT, core_steal=shares)

    # Of two cores 4.9 %, 5 % and 20 %, of one 7 %; of the last load nothing is known.
    rounds = {"a": [steal(0.0, 0.098), steal(0.1, 0.0)], "b": [steal(0.07)]}
    found = Demo({}, rounds=rounds, http={"a": steal(0.1, 0.3), "b": steal()})
    (warning,) = warn_of_hypervisor(found)
    assert warning.startswith("In 3 of 4 loads a hypervisor gave a part of this machine's cores to others, up to 20%. ")
    assert warn_of_hypervisor(Demo({}, rounds={"a": [steal(0.0, 0.098)], "b": [steal()]})) == ()
    assert warn_of_hypervisor(Demo({})) == ()


def test_stored_demo_is_explained_with_its_own_clients_and_rounds() -> None:
    found = Demo(
        {},
        rounds={"a": [vary(MEASUREMENT, users=5)] * 4, "b": [MEASUREMENT]},
        # Of three, one came late.
        waits={name: vary(MEASUREMENT, users=users) for name, users in (("a", 5), ("b", 6), ("c", 6))},
        http={"a": vary(MEASUREMENT, users=7)},
        measurements=[vary(MEASUREMENT, users=5)],
    )
    said = "\n".join(make_captions(found))
    assert "The load: 5 clients, each without a pause" in said
    assert "Each model is loaded 4 times" in said
    # 6 requests of 20 ms at once are 300 in a second.
    assert "another load: 6 clients of each model" in said
    assert "all 6 at once is at most 300" in said
    assert "a third load: 7 clients that send GET /ping" in said
    assert describe_load(found) == make_captions(found)[:1]


def test_load_that_no_model_got_is_not_explained() -> None:
    said = "\n".join(make_captions(Demo({})))
    assert "clients" not in said
    assert "is loaded" not in said
    assert describe_load(Demo({})) == ()
    loads = Demo({}, waits={"a": MEASUREMENT}), Demo({}, http={"a": MEASUREMENT})
    waits, http = ("\n".join(make_captions(found)) for found in loads)
    assert ["is another load: 16 clients" in said for said in (waits, http)] == [True, False]
    assert ["are of a third load: 16 clients" in said for said in (waits, http)] == [False, True]


def test_further_load_that_was_disturbed_or_failed_is_explained(tmp_path: Path) -> None:
    disturbed = Verdict(Limit.DISTURBED, "a generator was lost")
    wrong = Verdict(Limit.WRONG, "1 wrong reply")
    found = Demo(
        {},
        waits={"a": MEASUREMENT, "b": vary(MEASUREMENT, verdict=disturbed)},
        http={
            "a": vary(MEASUREMENT, verdict=wrong, failures={"wrong bytes": 1}),
            "b": MEASUREMENT,
            # Few enough for the verdict, and exit code 1 all the same.
            "c": vary(MEASUREMENT, verdict=Verdict(Limit.SERVER, "it was busy"), failures={"reset": 2}),
        },
    )
    said = explain_further_loads(found)
    assert said == (
        "b: 20 ms waits/s: disturbed: a generator was lost",
        "a: HTTP/s: wrong: 1 wrong reply; 1 × wrong bytes",  # noqa: RUF001
        "c: HTTP/s: server-bound: it was busy; 2 × reset",  # noqa: RUF001
    )
    assert said[0] in write(tmp_path, found, {"date": "today"}).read_text()
    assert explain_further_loads(Demo({}, waits={"a": MEASUREMENT})) == ()


def test_page_of_a_stored_demo_has_all_parts_of_it(tmp_path: Path) -> None:
    families = {"uvloop": "loop", "prefork": "process", "redis": "peer"}
    first, second = (vary(MEASUREMENT, model=name, family=families[name]) for name in ("uvloop", "redis"))
    found = Demo(
        families,
        checks={"uvloop": ModelResult(9, 1), "redis": ModelResult(7, 0)},
        rounds={"uvloop": [first] * 2, "redis": [second]},
        waits={"uvloop": vary(first, answered=120)},
        http={"uvloop": vary(first, answered=340, server_cpu_us=56.0)},
        missing={"prefork": "it ended"},
    )
    page = write(tmp_path, found, {"date": "today"}).read_text()
    assert "<h1>2 socket servers, one protocol</h1>" in page
    assert re.findall(r'<svg [^>]*aria-labelledby="(\S+)-title', page) == ["cpu", "rate", "latency", "cost"]
    rows = [dict(re.findall(r'data-label="([^"]+)" data-value="([^"]+)"', row)) for row in page.split("<tr data-name=")]
    names = ("tests", "20 ms waits/s", "HTTP/s", "HTTP CPU µs")
    cells = [[row[name] for name in names] for row in rows if "tests" in row]
    assert cells == [["9", "120", "340", "56"], ["7", "–", "–", "–"]]  # noqa: RUF001
    assert '<li><b class="mono">prefork</b>: it ended</li>' in page
    # Each picture has its own figures: 40 µs, and 10,000 requests/s.
    for name, shown in (("cpu", (True, False)), ("rate", (False, True))):
        (picture,) = re.findall(f'<svg [^>]*aria-labelledby="{name}-title.*?</svg>', page, re.DOTALL)
        assert ("40.0" in picture, "10.0k" in picture) == shown
    assert [row["CPU µs/req"] for row in rows if "tests" in row] == ["40", "40"]


def test_page_has_no_rank() -> None:
    text = render(
        Comparison(ROWS, COSTS, {name: Estimate(9000, 8000, 9500, 3) for name in COSTS}),
        title="t",
        lead="l",
        captions=[],
        checks={},
        missing={},
        extra=(),
        environment={"commit": None, "system": "Linux"},
    )
    assert "rank" not in text
    assert re.findall("<dt>(.*)</dt><dd>(.*)</dd>", text) == [("commit", "not known"), ("system", "Linux")]
    assert '<th scope="row" data-value="uvloop" title="pays">' in text
    # What does not tie with the row above has no word of it.
    assert 'title="ties with uvloop; 21.0 [19.0 23.0]">≈ 21.0<' in text
    assert 'title="150 [140 160]">150<' in text
    assert text.count('<svg class="chart"') == 4


def test_conformance_is_a_mark_with_its_numbers_as_a_note() -> None:
    def show(check: ModelResult | None) -> tuple[str, str, bool]:
        cell = _make_row(MEASUREMENT, {}, None, check, ())["tests"]
        return cell.text, cell.note, cell.is_good

    assert show(ModelResult(100, 0, 3)) == ("● 100", "100 of 100, 3 known limits", True)
    assert show(ModelResult(98, 2)) == ("▲ 2 fail", "98 of 100", False)
    assert show(None) == ("–", "", True)  # noqa: RUF001


def test_template_escapes_what_it_is_given_and_refuses_what_it_is_not() -> None:
    load_template.cache_clear()
    row = {"model": Cell("a", "a")}
    given = {"title": "<b>", "lead": "", "answer": {}, "charts": (), "rows": (row,), "texts": (), "environment": {}}
    text = load_template("load.html.j2").render(given)
    assert "<h1>&lt;b&gt;</h1>\n" in text
    # The colours are in the style, and a line with a tag alone leaves nothing behind.
    assert make_variables(LIGHT) in text
    assert make_variables(DARK) in text
    assert STYLE in text
    tagged = load_template("load.html.j2").environment.from_string("<p>\n  {% if true %}<b>\n  {% endif %}\n</p>")
    assert tagged.render() == "<p>\n<b>\n</p>"
    with pytest.raises(UndefinedError, match="'lead' is undefined"):
        load_template("load.html.j2").render({name: value for name, value in given.items() if name != "lead"})
