"""The conformance suite covers each service of each model: no filter and no typo drops tests."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from lab.base.paths import ROOT
from lab.experiments.conformance.suite import PLUGIN
from lab.experiments.faults.registry import FAULTS
from lab.servers.catalogue import Catalogue
from services.protocol import SERVICES, Transport

# One process collects once for all of them.
pytestmark = pytest.mark.xdist_group("conformance")

SUITE = ROOT / "tests" / "conformance"
CATALOGUE = Catalogue.load()
MODELS = CATALOGUE.select()
# (model, service, transport) of all that the models offer.
OFFERED = {(model.name, item.service, item.transport) for model in MODELS for item in model.addresses}
# WebSocket is spoken at the address of http.
OFFERED |= {(model, "websocket", transport) for model, service, transport in OFFERED if service == "http"}
CAPABILITIES = {name.split(".")[0] for model in CATALOGUE.models for name in model.limits}

# The models of this lab, which share the code of the protocol.
OURS = [model.name for model in MODELS if (ROOT / "services" / "models" / f"{model.name}.py").exists()]
LAST_MODEL = ("--models", OURS[-1])
ONE_TARGET = ("--target", "command=tcp://127.0.0.1:1")
EVERY_TARGET = tuple(word for service in SERVICES for word in ("--target", f"{service}=tcp://127.0.0.1:1"))
# The options that the suite is collected with.
RUNS = ((), ("--network",), LAST_MODEL, ONE_TARGET, EVERY_TARGET, ("--rfc", *EVERY_TARGET))

# Collects with each of the options on stdin, and prints a line of JSON for each: a row for each test. The arguments of
# parametrize, which are many and large, are left out.
_COLLECT = """
import json, sys, pytest

class Printer:
    def pytest_collection_finish(self, session):
        rows = []
        for item in session.items:
            target = item.callspec.params["target"]
            where = [target.model, target.service, str(target.transport)]
            marks = [mark for mark in item.iter_markers() if mark.name != "parametrize"]
            marks = [[mark.name, [str(arg) for arg in mark.args]] for mark in marks]
            rows.append([item.function.__name__, item.nodeid, where, marks])
        print("@" + json.dumps(rows))

for options in json.load(sys.stdin):
    arguments = [*sys.argv[1:], *options, "--collect-only", "-p", "no:cacheprovider"]
    if code := pytest.main(arguments, plugins=[Printer()]):
        sys.exit(code)
"""
Row = tuple[str, str, tuple[str, str, str], list[tuple[str, list[str]]]]


@cache
def collect_all() -> Mapping[tuple[str, ...], list[Row]]:
    """Collect with all options of `RUNS`, in one process."""
    environ = {name: value for name, value in os.environ.items() if name not in ("LAB_TARGETS", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [sys.executable, "-c", _COLLECT, *PLUGIN, str(SUITE)],
        input=json.dumps(RUNS),
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    lines = [line.removeprefix("@") for line in done.stdout.splitlines() if line.startswith("@")]
    found = {}
    for options, line in zip(RUNS, lines, strict=True):
        rows = json.loads(line)
        found[options] = [
            (name, nodeid, tuple(where), [tuple(mark) for mark in marks]) for name, nodeid, where, marks in rows
        ]
    return found


def collect(*options: str) -> list[Row]:
    return collect_all()[options]


def marks_of(marks: list[tuple[str, list[str]]], name: str) -> list[list[str]]:
    return [args for mark, args in marks if mark == name]


@pytest.mark.parametrize("options", [(), ("--network",)], ids=["processes", "network"])
def test_model_is_tested_on_each_of_its_services(options: tuple[str, ...]) -> None:
    asked = {where for _, _, where, _ in collect(*options)}
    assert asked == OFFERED


def test_each_test_runs_for_each_of_its_models() -> None:
    """Derived from markers and catalogue, not by the code that chooses the targets."""
    found: Mapping[str, set[tuple[str, str, str]]] = defaultdict(set)
    marks: dict[str, list[tuple[str, list[str]]]] = {}
    for name, nodeid, where, marked in collect("--network"):
        if not marks_of(marked, "once"):
            found[f"{nodeid.partition('::')[0]}::{name}"].add(where)
            marks[f"{nodeid.partition('::')[0]}::{name}"] = marked
    wrong = {}
    for name, places in found.items():
        service, kind = marks_of(marks[name], "service")[0]
        transports = {args[0] for args in marks_of(marks[name], "transport")} or set(Transport)
        limits = {args[0] for args in marks_of(marks[name], "limit")}
        expected = {
            (model.name, spoken, transport)
            for model in MODELS
            for name_, spoken, transport in OFFERED
            if name_ == model.name
            and spoken == service
            and Transport(transport).is_datagram == (kind == "datagram")
            and transport in transports
            and limits <= set(model.limits)
            and not (marks_of(marks[name], "ours") and model.rfc_only)
        }
        if places != expected:
            wrong[name] = (sorted(expected - places), sorted(places - expected))
    assert not wrong


def test_each_test_runs_for_some_model() -> None:
    """A name that no model declares, or a typo, would make a marker ineffective."""
    written = {
        f"{path.relative_to(ROOT)}::{node.name}"
        for path in SUITE.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    collected = {f"{nodeid.partition('::')[0]}::{name}" for name, nodeid, _, _ in collect("--network")}
    assert written == collected
    network_only = {
        f"{nodeid.partition('::')[0]}::{name}"
        for name, nodeid, _, marks in collect("--network")
        if marks_of(marks, "network_only")
    }
    here = {f"{nodeid.partition('::')[0]}::{name}" for name, nodeid, _, _ in collect()}
    assert here == written - network_only
    assert {name.partition("::")[0] for name in network_only} == {"tests/conformance/test_redis_tools.py"}


def test_every_name_in_a_marker_exists() -> None:
    known: dict[str, set[str]] = {
        "service": {*SERVICES, "websocket"},
        "transport": {*Transport},
        "capability": CAPABILITIES | documented_capabilities(),
        "limit": CAPABILITIES,
    }
    used = [(name, args) for _, _, _, marks in collect("--network") for name, args in marks if name in known]
    assert {name: {args[0] for mark, args in used if mark == name} - known[name] for name in known} == {
        name: set() for name in known
    }
    assert {args[1] for name, args in used if name == "service"} == {"stream", "datagram"}


def documented_capabilities() -> set[str]:
    page = (ROOT / "docs" / "adding-a-server.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| `lab.limit.NAME`"))
    return set(re.findall(r"`([a-z-]+)`", line))


def test_each_declared_limit_is_tested() -> None:
    """A typo in a label would excuse no test, and be wrong in the tables."""
    tested = {args[0] for _, _, _, marks in collect("--network") for args in marks_of(marks, "capability")}
    of_faults = {name for fault in FAULTS.values() for name in fault.needs}
    assert tested <= CAPABILITIES <= tested | of_faults


def test_protocol_case_runs_for_one_model_and_all_external_servers() -> None:
    asked: dict[str, set[str]] = {
        nodeid.split("[")[1].split("-command-")[1]: set()
        for _, nodeid, where, marks in collect()
        if marks_of(marks, "once") and where[1] == "command"
    }
    models = {where[0] for _, _, where, marks in collect() if marks_of(marks, "once")}
    assert models & set(OURS) == {OURS[0]}
    # Of test_command.py: over TCP, TLS and Unix sockets; over UDP and Unix datagrams.
    assert len(asked) == (4 + 3 + 7 + 8 + 2 + 3) * 3 + 3 * 2
    alone = [marks for _, _, where, marks in collect(*LAST_MODEL) if marks_of(marks, "once") and where[1] == "command"]
    assert len(alone) == (4 + 3 + 7 + 8 + 2 + 3) * 3 + 3 * 2
    foreign = collect(*ONE_TARGET)
    assert sum(bool(marks_of(marks, "once")) for _, _, _, marks in foreign) == 4 + 3 + 7 + 8 + 2 + 3
    # Every model keeps a case of each of these tests. Those of test_http.py are about the parser alone.
    names = {name for name, _, where, marks in collect() if marks_of(marks, "once") and where[1] == "command"}
    for model in OURS:
        assert names <= {name for name, _, where, _ in collect() if where[0] == model}


def test_external_server_is_tested_on_all_rfcs() -> None:
    rows = collect("--rfc", *EVERY_TARGET)
    assert {where[1] for _, _, where, _ in rows} == {*SERVICES}
    beyond = ("ours", "redis", "routes")
    assert not any(marks_of(marks, mark) for _, _, _, marks in rows for mark in beyond)
    every = collect(*EVERY_TARGET)
    asked = {nodeid for _, nodeid, _, marks in every if not any(marks_of(marks, mark) for mark in beyond)}
    assert asked == {row[1] for row in rows}
    # What redis-server answers is asked of it, and of its like, without --rfc.
    assert any(marks_of(marks, "redis") for _, _, _, marks in every)


def test_missing_program_does_not_skip_tests() -> None:
    """A missing program is a failure. Only tests of an optional engine may be skipped."""
    skipping = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and re.search(r"pytest\.(mark\.)?(skip|importorskip)", path.read_text("utf-8"))
    }
    # An engine, where none is required; a machine without apt-get, and one without wheels of atheris.
    assert skipping == {
        "tests/lab/conftest.py",
        "tests/lab/engine/test_engine.py",
        "tests/services/protocol/test_fuzz.py",
    }
