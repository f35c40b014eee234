"""`lab load` and `lab demo`: conditions, exit codes, and the page."""

import json
import re
from datetime import datetime
from functools import partial

import pytest

from lab.base.errors import LabError
from lab.base.units import UNKNOWN, show_bytes, show_count, show_us
from lab.cli.commands.load import choose_preset, report
from lab.experiments import demo, store
from lab.experiments.conformance import results, suite
from lab.experiments.demo import Demo
from lab.experiments.store import Run
from lab.load.exports import describe_changes
from lab.load.presets import PRESETS
from lab.load.selection import check_fit, select_able
from lab.load.thresholds import Threshold, find_tripped
from lab.metrics.verdict import Limit, Verdict
from lab.report import demo_files, demo_page
from lab.report.cells import show_rate
from lab.report.demo_files import make_columns
from lab.report.measurement_charts import Comparison
from lab.report.terminal import make_table, open_console
from lab.servers.catalogue import Catalogue, Listener
from services.protocol import Transport


def test_no_reply_at_all_does_not_hold(make_measurement):
    assert list(find_tripped([make_measurement()], [])) == []
    assert list(find_tripped([make_measurement(answered=0)], [])) == ["asyncio_streams: not one correct reply"]


def test_each_condition_that_is_true_has_a_line_with_the_verdict(make_measurement):
    found = [make_measurement(model=name, verdict=Verdict(Limit.GENERATOR, "it was busy")) for name in ("a", "b")]
    found.append(make_measurement(model="c", answered=0, failures={}, verdict=Verdict(Limit.FAILED, "refused")))
    thresholds = [Threshold.parse(text) for text in ("rate > 1", "failures > 7", "p99 >  1ms")]
    assert list(find_tripped(found, thresholds)) == [
        *(f"{name}: {text} (generator-bound: it was busy)" for name in "ab" for text in ("rate > 1", "p99 >  1ms")),
        "c: not one correct reply",
        # Without any exchange, failures are unknown.
        *(f"c: {text} (failed: refused)" for text in ("failures > 7", "p99 >  1ms")),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.50"),
        (99.94, "99.9"),
        (812, "812"),
        (999.6, "1.00k"),
        (4712, "4.71k"),
        (12_345, "12.3k"),
        (999_600, "1.00M"),
    ],
)
def test_counts_have_three_digits(value, text):
    assert show_count(value) == text


def test_unknown_is_a_dash_and_never_zero():
    assert show_us(None) == show_bytes(None) == "–"  # noqa: RUF001
    assert show_us(52.34) == "52.3"
    assert show_us(48_123.0) == "48\u202f100"


def test_lower_bound_is_marked(make_measurement):
    bound = make_measurement(verdict=Verdict(Limit.GENERATOR, "it was"))
    assert show_rate(bound) == "≥ 10.0k"
    assert show_rate(make_measurement()) == "10.0k"


def test_checks_are_counted_by_model():
    outcomes = ("passed", "passed", "failed", "error", "xfailed", "skipped")
    findings = [suite.Finding(f"t.py::{outcome}[a]", "a", "tcp", outcome, "") for outcome in outcomes]
    report = suite.SuiteReport((*findings, suite.Finding("t.py::x[c]", "c", "tcp", "passed", "")))
    assert report.count(["a", "b", "c"]) == {
        "a": results.ModelResult(2, 2, 1, ("t.py::failed[a]", "t.py::error[a]")),
        "b": results.ModelResult(0, 0, 0),
        "c": results.ModelResult(1, 0, 0),
    }


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (results.ModelResult(7, 0), None),
        (results.ModelResult(7, 0, 2), None),
        (results.ModelResult(0, 0, 2), "the conformance suite has no tests for it"),
        (
            results.ModelResult(208, 1, 0, ("tests/conformance/test_tls.py::test_x[1.2-a-echo-tls]@a",)),
            "1 of 209 conformance tests fail: test_x[1.2-a-echo-tls]; `lab --backend process check a` shows why",
        ),
        (
            results.ModelResult(5, 4, 0, ("t.py::a[a]", "t.py::b[a]", "t.py::c[a]", "t.py::d[a]")),
            "4 of 9 conformance tests fail: a[a], b[a], c[a] and 1 more; `lab --backend process check a` shows why",
        ),
    ],
)
def test_model_that_fails_is_said_with_its_tests_and_the_command(result, reason):
    assert result.explain("a", "process") == reason


def test_command_that_shows_why_names_no_backend_where_none_is_known():
    result = results.ModelResult(5, 1, 0, ("t.py::a[a]",))
    assert result.explain("a", None) == "1 of 6 conformance tests fail: a[a]; `lab check a` shows why"


def test_model_whose_failures_have_no_names_is_said_without():
    """A run that an earlier version has kept."""
    assert results.ModelResult(5, 1).explain("a", None) == "1 of 6 conformance tests fail; `lab check a` shows why"


def _write(tmp_path, *measurements, **fields):
    found = demo.Demo(families={}, rounds={item.model: [item] for item in measurements}, **fields)
    return demo_files.write(tmp_path, found, {"date": "today", "commit": None}).parent


def test_page_and_data_are_written(tmp_path, make_measurement):
    folder = _write(tmp_path, make_measurement(), checks={"asyncio_streams": results.ModelResult(100, 0, 3)})
    text = (folder / "index.html").read_text()
    assert "asyncio_streams" in text
    assert "100 of 100" in text
    assert "3 known limits" in text
    assert "not known" in text  # the commit
    assert "http://" not in text
    assert "https://" not in text
    kept = Run.open(folder)
    assert kept.read("load-1/asyncio_streams")["measurement"]["p99_us"] == 52_300.7
    assert kept.is_finished
    # The page is made from what is stored.
    assert demo_files.render(kept) == text
    assert (tmp_path / "demo" / "latest").resolve() == folder
    assert (_write(tmp_path, make_measurement())).name == (tmp_path / "demo" / "latest").resolve().name


def test_stored_demo_is_read_as_it_was(tmp_path, make_measurement):
    families = {"b": "process", "a": "thread", "c": "peer"}
    measured = {
        name: make_measurement(model=name, family=families[name], users=number)
        for number, name in enumerate(families, 1)
    }
    found = demo.Demo(
        families,
        {name: results.ModelResult(5, 0) for name in families},
        {"b": [measured["b"], measured["c"]], "a": [measured["a"]]},
        waits={"a": measured["a"]},
        http={"b": measured["b"]},
        missing={"c": "it has no tests"},
    )
    found.measurements = demo.order_rows(found)
    page = demo_files.write(tmp_path, found, {"date": "today"})
    assert demo.read(Run.open(page.parent)) == found
    assert "2 socket servers, one protocol" in page.read_text()


def test_page_escapes_what_it_is_given(tmp_path, make_measurement):
    evil = "<script>alert(1)</script>"
    found = make_measurement(
        model=f'"{evil}', summary=evil, family=evil, failures={evil: 3}, verdict=Verdict(Limit.WAITING, evil)
    )
    folder = _write(tmp_path, found, missing={evil: evil})
    text = (folder / "index.html").read_text()
    assert evil not in text
    assert '""&lt;' not in text
    assert text.count("&lt;script&gt;") >= 6


def test_page_and_table_show_what_is_missing(tmp_path, make_measurement):
    nothing = make_measurement(
        answered=0,
        failures={"connection refused": 12},
        histogram=(),
        mean_us=None,
        min_us=None,
        max_us=None,
        in_flight=None,
        server_cpu_us=None,
        memory_bytes=None,
        threads=None,
        verdict=Verdict(Limit.FAILED, "not one correct reply"),
    )
    folder = _write(tmp_path, nothing, missing={"plain_socket": "2 of 100 conformance tests fail"})
    text = (folder / "index.html").read_text()
    assert "connection refused" in text
    assert "2 of 100 conformance tests fail" in text
    assert 'data-value="None"' not in text
    console = open_console()
    with console.capture() as capture:
        console.print(make_table([nothing], summaries=True, extra=make_columns(Demo({}))))
    assert "connection refused" in capture.get()
    assert " 0.0" not in capture.get()


def test_page_has_a_column_for_each_further_load(make_measurement):
    first = make_measurement(model="a", answered=9000, seconds=1.0)
    found = Demo({}, http={"a": make_measurement(model="a", answered=8642, seconds=2.0, server_cpu_us=87.0)})
    page = partial(demo_page.render, Comparison.of([first]), title="t", lead="l", captions=[], checks={})
    plain, text = (page(extra=extra, missing={}, environment={}) for extra in ((), make_columns(found)))
    assert plain.count("<td ") == 9
    assert re.findall(r'data-label="([^"]*(?:HTTP|waits)[^"]*)" data-value="([^"]*)">([^<]*)<', text) == [
        ("20 ms waits/s", UNKNOWN, UNKNOWN),
        ("HTTP/s", "4321", "4.32k"),
        ("HTTP CPU µs", "87", "87.0"),
    ]


def test_page_without_any_measurement(tmp_path):
    assert "<table" not in (_write(tmp_path) / "index.html").read_text()


@pytest.mark.parametrize(
    ("preset", "conditions", "options", "said"),
    [
        ("closed_ping", ["rate < 99%"], {}, "'rate < 99%' needs an open loop"),
        ("closed_ping", ["late > 0"], {}, "needs an open loop"),
        ("closed_ping", ["lost > 0"], {}, "'lost > 0' needs datagrams"),
        ("closed_ping", ["p99 > 7s"], {}, r"cannot be true: an exchange has failed after 5 s \(--timeout\)"),
        ("closed_ping", ["rate < 10k", "p99 > 1s"], {"timeout": 0.5}, "cannot be true"),
        ("open_steady", ["rate < 1001"], {}, "cannot be false: at most 1000 requests/s are sent"),
        ("open_steady", ["rate > 250"], {"rate": 250.0}, "cannot be true: at most 250 requests/s are sent"),
        ("closed_ping", [], {"rate": 5.0}, "--rate goes with an open loop, and closed_ping is a closed one"),
        ("closed_upload", [], {"transport": Transport.UDP}, "upload does not work over udp"),
        ("open_steady", [], {"payload": 100}, "no payload"),
        ("closed_think", [], {"payload": 100}, "think has no payload"),
        ("closed_datagrams", [], {"payload": 8192, "transport": Transport.UDP}, "at most 4096"),
    ],
)
def test_what_does_not_fit_together_is_said_before_anything_starts(preset, conditions, options, said):
    with pytest.raises(LabError, match=said):
        check_fit(PRESETS[preset].change(**options), [Threshold.parse(text) for text in conditions])


def test_random_arrivals_can_exceed_the_rate_in_a_window():
    check_fit(PRESETS["open_poisson"], [Threshold.parse("rate > 1000")])
    with pytest.raises(LabError, match="cannot be true: at most 1000 requests/s are sent"):
        check_fit(PRESETS["open_steady"], [Threshold.parse("rate > 1000")])


class _Listening:
    def __init__(self, *spoken):
        self._spoken = spoken

    def targets(self):
        return [Listener(model, service, transport, "tcp://127.0.0.1:1") for model, service, transport in self._spoken]


# Of open_ws_echo. The last two declare that they have no WebSocket.
ABLE, OTHER, SYNC, GEVENT = "asyncio_streams", "prefork", "peer_gunicorn_sync", "peer_gunicorn_gevent"
WHY = "WSGI cannot hand over a connection"
SILENT = "do not speak http over tcp"


@pytest.mark.parametrize(
    ("spoken", "silent", "kept", "said"),
    [
        ([ABLE, OTHER], [], [OTHER, ABLE], []),
        ([ABLE], [OTHER], [ABLE], [f"left out, as they {SILENT}: prefork"]),
        ([ABLE, SYNC, GEVENT], [], [ABLE], [f"left out: {SYNC}: {WHY}; {GEVENT}: {WHY}"]),
        ([ABLE, SYNC], [OTHER], [ABLE], [f"left out, as they {SILENT}: prefork", f"left out: {SYNC}: {WHY}"]),
        # One that neither speaks it nor could answer is left out once, and the other one is not.
        ([ABLE], [SYNC], [ABLE], [f"left out, as they {SILENT}: {SYNC}"]),
    ],
)
def test_models_that_cannot_be_asked_are_left_out_unless_they_are_named(capsys, spoken, silent, kept, said):
    backend = _Listening(*[(name, "http", "tcp") for name in spoken], *[(name, "echo", "tcp") for name in silent])
    models = Catalogue.load().select([*spoken, *silent])
    chosen = select_able(backend, models, PRESETS["open_ws_echo"], named=False)
    assert [model.name for model in chosen] == kept
    assert capsys.readouterr() == ("", "".join(f"lab: {line}\n" for line in said))
    if said:
        with pytest.raises(LabError):
            select_able(backend, models, PRESETS["open_ws_echo"], named=True)
    else:
        assert select_able(backend, models, PRESETS["open_ws_echo"], named=True) == list(models)


@pytest.mark.parametrize(
    ("spoken", "silent", "said"),
    [
        ([], [OTHER, ABLE], f"asks http over tcp, which {OTHER}, {ABLE} does not speak"),
        ([SYNC, GEVENT], [], f"cannot be answered: {SYNC}: {WHY}; {GEVENT}: {WHY}"),
        ([SYNC], [OTHER], f"cannot be answered: {SYNC}: {WHY}"),
    ],
)
def test_load_that_no_model_can_be_asked_is_an_error(capsys, spoken, silent, said):
    backend = _Listening(*[(name, "http", "tcp") for name in spoken], *[(name, "http", "udp") for name in silent])
    models = Catalogue.load().select([*spoken, *silent])
    with pytest.raises(LabError, match=f"^open_ws_echo {said}$"):
        select_able(backend, models, PRESETS["open_ws_echo"], named=False)


def test_measurements_are_written_with_their_times(tmp_path, make_measurement, capsys):
    measured = [make_measurement(), make_measurement(model="m", service=((90.0, 5),))]
    report(measured, tmp_path / "new", "-7users", as_json=True)
    assert (
        json.loads((tmp_path / "new" / "closed_session-asyncio_streams-7users.json").read_text())["p99_us"] == 52_300.7
    )
    text = (tmp_path / "new" / "closed_session-m-7users-service.hgrm").read_text()
    assert "0.0900 1.000000000000          5" in text
    assert sorted(path.name for path in (tmp_path / "new").glob("*.hgrm")) == [
        "closed_session-asyncio_streams-7users-service.hgrm",
        "closed_session-m-7users-intended.hgrm",
        "closed_session-m-7users-service.hgrm",
    ]
    printed, err = capsys.readouterr()
    assert [item["model"] for item in json.loads(printed)] == ["asyncio_streams", "m"]
    page = tmp_path / "new" / "closed_session-7users.html"
    assert err == f"the page: {page}\n"
    first = measured[0]
    assert f"{first.users} users, {first.load.seconds:.2g} s of each model." in page.read_text()
    (tmp_path / "file").touch()
    report(measured, tmp_path / "file", "", as_json=True)
    printed, err = capsys.readouterr()
    assert len(json.loads(printed)) == 2
    assert err.startswith("lab: not stored: ")
    assert "file: cannot be written: File exists" in err


def test_second_measurement_does_not_overwrite_the_first(tmp_path, make_measurement):
    for answered in (1, 2, 3):
        report([make_measurement(answered=answered)], tmp_path, "", as_json=True)
    stems = ["closed_session-asyncio_streams", "closed_session-asyncio_streams-2", "closed_session-asyncio_streams-3"]
    assert [json.loads((tmp_path / f"{stem}.json").read_text())["answered"] for stem in stems] == [1, 2, 3]
    assert len(list(tmp_path.glob("*-service.hgrm"))) == 3


# Of open_echo_1k: 64 users, 1000/s, 5 s, over TCP, and its own payload.
@pytest.mark.parametrize(
    ("given", "workers", "changes"),
    [
        ({}, 0, ""),
        ({"rate": 1000.0}, 0, ""),
        ({"rate": 2500.5}, 0, "-2500.5rps"),
        ({"users": 8}, 0, "-8users"),
        ({"transport": Transport.TLS}, 0, "-tls"),
        ({"payload": 100}, 0, "-100bytes"),
        ({"duration": 0.5}, 0, "-0.5s"),
        ({}, 2, "-2workers"),
        (
            {"transport": Transport.UNIX, "users": 1, "rate": 5.0, "payload": 7, "duration": 9.0},
            1,
            "-unix-1users-5rps-7bytes-9s-1workers",
        ),
    ],
)
def test_file_of_a_measurement_is_named_by_what_was_changed(given, workers, changes):
    preset = PRESETS["open_echo_1k"]
    assert describe_changes(preset.change(**given), preset, workers=workers) == changes


@pytest.mark.parametrize(
    ("given", "name", "changes"),
    [
        ({}, "closed_session", {}),
        ({"name": "open_ramp"}, "open_ramp", {}),
        ({"loop": "open"}, "open_session", {}),
        ({"workload": "ping"}, "closed_ping", {}),
        # The first preset with this workload and loop has the defaults.
        ({"workload": "mixed", "loop": "open"}, "open_mixed", {"rate": 200.0, "arrivals": "random"}),
        ({"workload": "ping", "shape": "ramp"}, "closed_ramp", {"users": 64}),
        ({"workload": "ping", "loop": "open", "arrivals": "random"}, "open_poisson", {}),
        ({"workload": "mixed", "loop": "open", "arrivals": "even"}, "open_mixed_even", {"rate": 200.0}),
        ({"workload": "datagrams", "shape": "steps"}, "closed_datagrams_steps", {"transport": Transport.UDP}),
        ({"workload": "blob", "loop": "open", "shape": "spike"}, "open_blob_spike", {"users": 64, "rate": 1000.0}),
    ],
)
def test_workload_loop_and_shape_are_a_preset_or_make_one(given, name, changes):
    found = choose_preset(**dict.fromkeys(("name", "workload", "loop", "shape", "arrivals")) | given)
    assert found.name == name
    wanted = {key: value for key, value in given.items() if key != "name"} | changes
    assert {key: getattr(found.spec, key) for key in wanted} == wanted
    assert found.spec.window == found.spec.shape_time


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "closed_ping", "loop": "open"}, "--preset sets workload, loop, shape and arrivals: use either"),
        ({"workload": "think", "loop": "open"}, "think is a script, and has no open loop"),
        ({"workload": "ping", "arrivals": "random"}, "--arrivals goes with an open loop: add --loop open"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given, said):
    with pytest.raises(LabError, match=said):
        choose_preset(**dict.fromkeys(("name", "workload", "loop", "shape", "arrivals")) | given)


def test_demo_of_the_same_second_has_a_folder_of_its_own(tmp_path, make_measurement, monkeypatch):
    monkeypatch.setattr(store, "datetime", SameSecond)
    folders = [_write(tmp_path, make_measurement(answered=answered)) for answered in (1, 2)]
    assert [folder.name for folder in folders] == ["2026-01-02T030405Z", "2026-01-02T030405Z-2"]
    assert [demo.read(Run.open(folder)).measurements[0].answered for folder in folders] == [1, 2]
    assert (tmp_path / "demo" / "latest").resolve() == folders[1]


class SameSecond:
    @staticmethod
    def now(zone):
        return datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone)


def test_a_table_has_the_columns_of_an_open_loop_and_of_datagrams_only_where_there_are_some(make_measurement):
    def show(*measurements):
        console = open_console()
        with console.capture() as capture:
            console.print(make_table(measurements))
        return capture.get()

    closed = make_measurement()
    opened = make_measurement(model="opened", asked_rate=10_000.0, service=((40.0, 5),), late=12, dropped=34)
    datagrams = make_measurement(model="datagrams", lost=56, duplicates=78, reordered=90)
    assert "dropped" not in show(closed)
    assert "reordered" not in show(closed, opened)
    text = show(closed, opened, datagrams)
    for word in ("service p99 µs", "late", "dropped", "lost", "duplicate", "reordered", "40.0", " 12 ", " 34 ", " 56 "):
        assert word in text
