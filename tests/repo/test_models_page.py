"""docs/models/: pages that match the catalogue, the code and the figures, each complete."""

import ast
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace

import pytest

from lab.base.units import UNKNOWN
from lab.experiments.published import Idle, Measured, Summary
from lab.experiments.xray.analysis import is_orderly
from lab.experiments.xray.recording import read_recordings
from lab.servers.catalogue import Catalogue
from lab.servers.scaffold import BLANK
from tools.docs.catalogue_tables import make_facts
from tools.docs.excerpt import PageError, extract
from tools.docs.figures import HTTP, PIPELINE, REFERENCE, SESSIONS
from tools.docs.models_page import (
    BREAKS,
    CHOICE,
    CODE,
    DIAGRAM,
    INDEX,
    PARTS,
    ROW,
    Sources,
    find_faults,
    make_block,
    make_page,
    read_pages,
    render,
)
from tools.docs.scenes import DATA, PICTURE, SLEEP, SLOW, make_picture, make_scenes

PAGES = read_pages()
RECORDINGS = read_recordings(DATA)
SOURCES = Sources(Catalogue.load(), Measured.load(), RECORDINGS)
NAMES = SOURCES.explained
ONE_AT_A_TIME = next(name for name in NAMES if "overlap" in SOURCES.catalogue[name].limits)
# A model without limits; any other would do.
NAME = next(name for name in NAMES[1:] if not SOURCES.catalogue[name].limits)
PAGE = PAGES[NAME]


@pytest.mark.parametrize("name", PAGES)
def test_page_is_up_to_date(name: str) -> None:
    assert render(PAGES[name], SOURCES) == PAGES[name], "run make docs"


def test_pages_are_complete() -> None:
    assert not find_faults(PAGES, SOURCES)


@pytest.mark.parametrize("name", PAGES)
def test_every_mark_of_a_block_has_its_end(name: str) -> None:
    blocks = find_blocks(PAGES[name])
    assert len(blocks) == len(set(blocks)) == PAGES[name].count("<!-- generated: ") == PAGES[name].count("<!-- end -->")


def find_blocks(page: str) -> list[str]:
    return re.findall(r"^<!-- generated: (.+) -->$", page, re.MULTILINE)


@pytest.mark.parametrize("block", ["index", "support"])
def test_index_has_a_row_for_each_model(block: str) -> None:
    assert block in find_blocks(PAGES[INDEX])
    rows = re.findall(r"^\| \[?`(\w+)`", make_block(block, SOURCES), re.MULTILINE)
    assert rows == list(SOURCES.catalogue.names)


def test_stale_block_is_rewritten() -> None:
    stale = PAGE.replace("\ndef ", "\ndef not_", 1).replace("    def ", "    def not_", 1).replace("Family: ", "Clan: ")
    assert stale != PAGE
    assert render(stale, SOURCES) == PAGE


def find_part(title: str) -> str:
    found = re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("title", PARTS)
def test_missing_part_is_reported(title: str) -> None:
    without = PAGE.replace(f"## {title}\n\n{find_part(title)}", "")
    assert f"{NAME}: the part {title!r} is missing" in find_faults(PAGES | {NAME: without}, SOURCES)


@pytest.mark.parametrize(
    ("title", "change", "said"),
    [
        (DIAGRAM, lambda text: text.replace(f"xray {NAME}", f"xray {NAMES[0]}"), f"the block 'xray {NAME}' is missing"),
        (
            CODE,
            lambda text: text.replace(f"services/models/{NAME}.py ", "services/serving/blocking.py ", 1),
            "no code of",
        ),
        (BREAKS, lambda text: "\n", "'What breaks first' is empty"),
        (BREAKS, lambda text: f"{BLANK}\n\n", "still has"),
        (BREAKS, lambda text: "word " * 1000, "more than five minutes"),
        (CHOICE, lambda text: text.replace("**For:**", ""), "**For:**"),
        (CHOICE, lambda text: text.replace("**Not for:**", ""), "**Not for:**"),
        (ROW, lambda text: text.replace(f"row {NAME}", f"row {NAMES[0]}"), f"the block 'row {NAME}' is missing"),
    ],
)
def test_incomplete_part_is_reported(title: str, change: Callable[[str], str], said: str) -> None:
    changed = PAGE.replace(find_part(title), change(find_part(title)))
    faults = find_faults(PAGES | {NAME: changed}, SOURCES)
    assert any(fault.startswith(NAME) and said in fault for fault in faults), faults


def test_wrong_title_is_reported() -> None:
    changed = PAGE.replace(f"# `{NAME}`", f"# `{NAMES[0]}`", 1)
    assert find_faults(PAGES | {NAME: changed}, SOURCES) == [f"{NAME}: its title is not its name"]


def test_missing_facts_and_parts_out_of_order_are_reported() -> None:
    changed = PAGE.replace(f"<!-- generated: facts {NAME} -->", f"<!-- generated: facts {NAMES[0]} -->")
    assert find_faults(PAGES | {NAME: changed}, SOURCES) == [f"{NAME}: the block 'facts {NAME}' is missing"]
    said = f"{NAME}: parts are unknown or out of order: "
    assert f"{said}{', '.join(PARTS)}, Other" in find_faults(PAGES | {NAME: f"{PAGE}\n## Other\n\nx\n"}, SOURCES)
    last = f"## {ROW}\n\n{find_part(ROW)}"
    changed = PAGE.replace(last, "").replace(f"## {CHOICE}\n", f"{last}\n## {CHOICE}\n")
    assert find_faults(PAGES | {NAME: changed}, SOURCES) == [f"{said}{', '.join((*PARTS[:3], ROW, CHOICE))}"]


def test_docstring_without_one_of_the_consequences_is_an_error_that_names_the_file() -> None:
    lines = ["Unit of concurrency: a", "What blocks whom: b\n    c", "What runs out first: d"]
    model = SOURCES.catalogue[NAME]
    docstring = "\n".join(lines)
    facts = make_facts(SOURCES.catalogue, model, f'"""Serve.\n\n{docstring}\n\nMore.\n"""', "a.py").splitlines()
    assert facts[2:5] == ["* **Unit of concurrency:** a", "* **What blocks whom:** b c", "* **What runs out first:** d"]
    for wrong in (lines[:2], lines[1:], [lines[1], lines[0], lines[2]]):
        docstring = "\n".join(wrong)
        with pytest.raises(PageError, match=r"^a\.py: its docstring does not have the lines Unit of concurrency, What"):
            make_facts(SOURCES.catalogue, model, f'"""Serve.\n\n{docstring}\n"""', "a.py")


def test_every_model_has_both_scenes_recorded() -> None:
    recorded = {(each.model, each.scene) for each in RECORDINGS}
    assert not [name for name in NAMES if not {(name, SLEEP), (name, SLOW)} <= recorded]


def test_recorded_scenes_are_orderly_and_whole() -> None:
    for recording in RECORDINGS:
        assert is_orderly(recording), recording.model
        assert not recording.missing, recording.model
        assert recording.processes, recording.model
        assert all(client.answered for client in recording.clients), recording.model


def test_model_without_a_recording_says_so() -> None:
    assert make_scenes([], NAME) == "Not recorded yet; `make xray` records it."


def test_picture_is_up_to_date() -> None:
    assert make_picture(RECORDINGS) == PICTURE.read_text(), "run make docs"


def test_page_without_a_model_is_reported() -> None:
    assert find_faults(PAGES | {"gone": PAGE}, SOURCES) == ["gone has a page and no model"]


def test_model_without_a_page_gets_one_to_fill_in() -> None:
    without = {name: page for name, page in PAGES.items() if name != NAME}
    assert find_faults(without, SOURCES) == [f"{NAME} has no page"]
    made = render(make_page(NAME), SOURCES)
    assert f"From [services/models/{NAME}.py](../../services/models/{NAME}.py)" in made
    faults = find_faults(without | {NAME: made}, SOURCES)
    assert f"{NAME}: still has {BLANK} in it" in faults
    assert all(fault.startswith(f"{NAME}: ") for fault in faults)
    assert render(made, SOURCES) == made


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("nothing", "'nothing'"),
        ("row no_such_model", "no_such_model"),
        ("facts no_such_model", "no_such_model"),
        ("code services/models/plain_socket.py no_such_function", "plain_socket.py has no no_such_function"),
        ("code services/models/plain_socket.py serve.inner", "has no serve.inner"),
        ("code services/models/no_such_file.py serve", "no_such_file.py: No such file"),
        ("code ../outside.py serve", "not a file of this project"),
    ],
)
def test_block_of_an_unknown_name_is_an_error_that_names_it(block: str, said: str) -> None:
    with pytest.raises(PageError, match=re.escape(said)):
        make_block(block, SOURCES)


CODE_FILE = textwrap.dedent('''\
    """A module."""

    LOOP = object  # which


    class Thing(Base):
        """What it is."""

        def first(self) -> None:
            """One line."""
            # ## no heading
            pass

        @property
        def second(self) -> int:
            """Several
            lines.
            """

            return 1

        def third(self) -> None:
            pass


    async def run() -> None:
        await sleep(1)
    ''')


def test_excerpt_is_word_for_word() -> None:
    shown = extract(CODE_FILE, ["LOOP", "Thing.first", "Thing.second"], "file")
    assert shown == textwrap.dedent('''\
        LOOP = object  # which


        class Thing(Base):
            """What it is."""

            def first(self) -> None:
                """One line."""
                # ## no heading
                pass

            @property
            def second(self) -> int:
                return 1''')


def test_omitted_part_of_a_class_is_marked() -> None:
    shown = extract(CODE_FILE, ["Thing.third", "run"], "file")
    assert shown == textwrap.dedent('''\
        class Thing(Base):
            """What it is."""

            # ...

            def third(self) -> None:
                pass


        async def run() -> None:
            await sleep(1)''')


def test_each_class_of_an_excerpt_has_its_heading() -> None:
    source = "class A:\n    def a(self): ...\n\n\nclass B(A):\n    def b(self): ...\n\n\nSIZE: int = 3\nC = D = 4\n"
    shown = extract(source, ["A.a", "B.b", "SIZE", "D"], "file")
    assert shown == (
        "class A:\n\n    def a(self): ...\n\n\nclass B(A):\n\n    def b(self): ...\n\n\nSIZE: int = 3\n\n\nC = D = 4"
    )


def test_code_in_pages_is_python() -> None:
    pages = "\n".join(PAGES.values())
    shown = re.findall(r"^```python\n(.*?)^```$", pages, re.MULTILINE | re.DOTALL)
    assert len(shown) == sum(block.startswith("code ") for block in find_blocks(pages)) > len(NAMES)
    for code in shown:
        ast.parse(code)


SUMMARY = Summary(
    rounds=5,
    users=16,
    rate=12_345.0,
    rate_spread=0.021,
    is_lower_bound=True,
    p50_us=812.0,
    p99_us=4_321.0,
    cpu_us=40.25,
    memory_bytes=15 * 2**20,
    verdicts={"generator-bound": 4, "waiting": 1},
    failures=0,
)


def show(measured: Measured, block: str = f"row {NAME}") -> str:
    return make_block(block, replace(SOURCES, measured=measured))


def test_missing_figure_is_reported_as_missing() -> None:
    nothing = "Under load: not measured yet.\n\nIdle connections: not measured yet."
    assert show(Measured()) == nothing
    assert show(Measured(models={NAMES[0]: {SESSIONS: SUMMARY}})) == nothing
    assert show(Measured(missing={NAME: "it fell over"})).startswith("Under load: it fell over.\n")
    assert show(Measured(), "rows") == "Not measured yet."
    assert show(Measured(), "environment").count("not measured yet") == 2
    # A server for one client at a time holds one connection.
    assert show(Measured(), f"row {ONE_AT_A_TIME}") == "Under load: not measured yet."


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_row_of_figures() -> None:
    pipeline = replace(SUMMARY, users=1, rate=98_765.0, rate_spread=None, is_lower_bound=False, cpu_us=None)
    measured = Measured(
        environment={"date": "today", "processor": None},
        seconds=3.0,
        models={NAME: {SESSIONS: SUMMARY, PIPELINE: pipeline}},
        idle={NAME: Idle(10_000, 3_174.4, 484.0)},
        idle_environment={"date": "yesterday"},
    )
    under_load, idle = show(measured).split("\n\n")
    assert cells(under_load.splitlines()[-1]) == [
        "≥ 12.3k",
        "± 2%",
        "812",
        "4\u202f320",
        "40.2",
        "15.0 MiB",
        "generator-bound (4 of 5), waiting (1 of 5)",
        "98.8k (one client)",
        UNKNOWN,
    ]
    assert cells(idle.splitlines()[-1]) == ["10000", "3.1 KiB", "484", UNKNOWN]
    rows = show(measured, "rows").splitlines()[2:]
    assert [cells(row)[0].strip("`") for row in rows] == list(SOURCES.catalogue.names)
    assert cells(rows[0])[1:] == [UNKNOWN] * 13
    described = show(measured, "environment")
    assert "* under load: medians of 5 rounds of 3 s" in described
    assert "* processor: not known" in described
    assert "* idle connections: date yesterday; commit not known" in described


def test_failures_rounds_and_an_unknown_length_are_told() -> None:
    failing = replace(SUMMARY, failures=3, verdicts={"waiting": 5})
    models = {
        NAME: {SESSIONS: failing, PIPELINE: replace(SUMMARY, failures=1)},
        NAMES[0]: {HTTP: replace(SUMMARY, rounds=3)},
    }
    measured = Measured(
        models=models, websockets={NAME: Idle(1)}, websockets_environment={"date": "today", "commit": None}
    )
    row = cells(show(measured).split("\n\n")[0].splitlines()[-1])
    assert (row[0], row[6], row[7]) == ("≥ 12.3k, 3 failed", "waiting", "≥ 12.3k, 1 failed")
    assert "* under load: medians of 3 or 5 rounds of unknown length\n" in show(measured, "environment")
    assert show(measured, "websockets").endswith("\n\nMeasured on: date today.")


def test_row_of_http_has_its_cost_relative_to_resp_and_to_uvicorn() -> None:
    http = replace(SUMMARY, rate=20_000.0, cpu_us=30.0)
    models = {
        NAME: {SESSIONS: replace(SUMMARY, cpu_us=20.0), HTTP: http},
        REFERENCE: {HTTP: replace(SUMMARY, cpu_us=120.0)},
    }
    _, table, _ = show(Measured(models=models)).split("\n\n")
    row = cells(table.splitlines()[-1])
    assert row == ["≥ 20.0k", "812", "4\u202f320", "30.0", "1.50", "0.25", "generator-bound (4 of 5), waiting (1 of 5)"]
    # A part that is missing in the run, and a model that is.
    _, table, _ = show(Measured(models={NAME: {HTTP: replace(http, cpu_us=None)}})).split("\n\n")
    assert cells(table.splitlines()[-1])[3:6] == [UNKNOWN] * 3
    _, table, _ = show(Measured(models={NAME: {HTTP: http}})).split("\n\n")
    assert cells(table.splitlines()[-1])[3:6] == ["30.0", UNKNOWN, UNKNOWN]
    assert "\n\nHTTP: not measured yet.\n\n" in show(Measured(models={NAMES[0]: {HTTP: http}}))


def test_row_of_idle_connections_alone() -> None:
    under_load, idle = show(Measured(idle={NAME: Idle(connections=1_000)})).split("\n\n")
    assert under_load == "Under load: not measured yet."
    assert cells(idle.splitlines()[-1]) == ["1000", UNKNOWN, UNKNOWN, UNKNOWN]


def test_row_of_idle_websockets_says_what_allows_no_more() -> None:
    assert show(Measured(), "websockets") == "Not measured yet."
    held = {NAME: Idle(10_000, 3_174.4), "thread_pool": Idle(63, 1024.0, why="a thread each")}
    table, facts = show(Measured(websockets=held, websockets_environment={"date": "today"}), "websockets").split("\n\n")
    rows = {cells(line)[0].strip("`"): cells(line)[1:] for line in table.splitlines()[2:]}
    assert rows.keys() == {*SOURCES.explained}
    assert rows[NAME] == ["", "10000", "3.1 KiB"]
    assert rows["thread_pool"] == ["a thread each", "63", "1.0 KiB"]
    assert rows["threads_nogil"] == ["runs only in a container", UNKNOWN, UNKNOWN]
    assert rows[ONE_AT_A_TIME] == ["serves one connection until it closes, then accepts the next", UNKNOWN, UNKNOWN]
    assert facts == "Measured on: date today."
