"""docs/models.md tells what the catalogue, the code and the figures say, and has a whole section for each model."""

import ast
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.base.units import UNKNOWN
from lab.experiments.published import Idle, Measured, Summary
from lab.servers.catalogue import Catalogue
from lab.servers.scaffold import BLANK
from tools.docs.models_page import (
    BREAKS,
    CHOICE,
    CODE,
    DIAGRAM,
    PARTS,
    PIPELINE,
    ROW,
    SESSIONS,
    PageError,
    Sources,
    extract,
    find_faults,
    make_block,
    render,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
SOURCES = Sources(Catalogue.load(), Measured.load())
NAMES = [model.name for model in SOURCES.explained]
BLOCKS = re.findall(r"^<!-- generated: (.+) -->$", PAGE, re.MULTILINE)
ONE_AT_A_TIME = next(model.name for model in SOURCES.explained if "overlap" in model.limits)
# A model with neighbours on both sides, for what has to be noticed anywhere.
NAME = next(model.name for model in SOURCES.explained[1:] if not model.limits)


def test_make_docs_would_change_nothing() -> None:
    assert render(PAGE, SOURCES) == PAGE, "run make docs"


def test_nothing_is_left_to_be_done_by_hand() -> None:
    assert not find_faults(PAGE, SOURCES)


def test_every_mark_of_a_block_has_its_end() -> None:
    assert len(BLOCKS) == len(set(BLOCKS)) == PAGE.count("<!-- generated: ") == PAGE.count("<!-- end -->")


def test_the_table_of_what_each_supports_has_a_row_for_everybody() -> None:
    rows = re.findall(r"^\| \[?`(\w+)`", make_block("support", SOURCES), re.MULTILINE)
    assert rows == list(SOURCES.catalogue.names)


def test_a_stale_block_is_made_anew() -> None:
    stale = PAGE.replace("\ndef ", "\ndef not_", 1).replace("| yes |", "| no |", 1)
    assert stale != PAGE
    assert render(stale, SOURCES) == PAGE


def section(name: str) -> str:
    found = re.search(rf"^## `{name}`\n.*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


def part(title: str) -> str:
    found = re.search(rf"^### {title}\n\n(.*?)(?=^### |\Z)", section(NAME), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("title", PARTS)
def test_a_part_that_is_missing_is_noticed(title: str) -> None:
    without = section(NAME).replace(f"### {title}\n\n{part(title)}", "")
    assert f"{NAME}: the part {title!r} is missing" in find_faults(PAGE.replace(section(NAME), without), SOURCES)


@pytest.mark.parametrize(
    ("title", "change", "said"),
    [
        (DIAGRAM, lambda text: text.replace("```", ""), "no diagram"),
        (
            CODE,
            lambda text: text.replace(f"services/models/{NAME}.py ", "services/serving/blocking.py ", 1),
            "no code of",
        ),
        (BREAKS, lambda text: "\n", "nothing says what breaks first"),
        (BREAKS, lambda text: f"{BLANK}\n\n", "still says"),
        (BREAKS, lambda text: "word " * 1000, "more than five minutes"),
        (CHOICE, lambda text: text.replace("**For:**", ""), "**For:**"),
        (CHOICE, lambda text: text.replace("**Not for:**", ""), "**Not for:**"),
        (ROW, lambda text: text.replace(f"row {NAME}", f"row {NAMES[0]}"), f"the block 'row {NAME}' is missing"),
    ],
)
def test_a_part_that_lacks_something_is_noticed(title: str, change: Callable[[str], str], said: str) -> None:
    changed = section(NAME).replace(part(title), change(part(title)))
    faults = find_faults(PAGE.replace(section(NAME), changed), SOURCES)
    assert any(fault.startswith(NAME) and said in fault for fault in faults), faults


def test_the_same_diagram_twice_is_noticed() -> None:
    first = re.search(r"```text\n.*?```", section(NAMES[0]), re.DOTALL)
    second = re.search(r"```text\n.*?```", section(NAME), re.DOTALL)
    assert first
    assert second
    faults = find_faults(PAGE.replace(second[0], first[0]), SOURCES)
    assert faults == [f"{NAME}: its diagram is that of {NAMES[0]}"]


def test_sections_out_of_order_are_noticed() -> None:
    swapped = PAGE.replace(section(NAME), "").replace(section(NAMES[0]), section(NAME) + section(NAMES[0]))
    assert find_faults(swapped, SOURCES) == ["the sections are not in the catalogue's order"]


@pytest.mark.parametrize("name", [NAMES[0], NAME, NAMES[-1]])
def test_a_model_without_a_section_gets_one_to_fill_in(name: str) -> None:
    without = PAGE.replace(section(name), "")
    assert find_faults(without, SOURCES) == [f"{name} has no section"]
    made = render(without, SOURCES)
    titles = re.findall(r"^## `(\w+)`$", made, re.MULTILINE)
    assert titles == NAMES
    assert f"From [services/models/{name}.py]" in made
    faults = find_faults(made, SOURCES)
    assert f"{name}: something still says {BLANK}" in faults
    assert all(fault.startswith(f"{name}: ") for fault in faults)
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
def test_a_block_of_what_does_not_exist_is_an_error_that_names_it(block: str, said: str) -> None:
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


def test_code_is_shown_word_for_word() -> None:
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


def test_what_is_left_out_of_a_class_is_marked() -> None:
    shown = extract(CODE_FILE, ["Thing.third", "run"], "file")
    assert shown == textwrap.dedent('''\
        class Thing(Base):
            """What it is."""

            # ...

            def third(self) -> None:
                pass


        async def run() -> None:
            await sleep(1)''')


def test_all_code_on_the_page_is_python() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == sum(block.startswith("code ") for block in BLOCKS)
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


def test_what_was_not_measured_is_said_and_not_made_up() -> None:
    nothing = "Under load: not measured yet.\n\nIdle connections: not measured yet."
    assert show(Measured()) == nothing
    assert show(Measured(models={NAMES[0]: {SESSIONS: SUMMARY}})) == nothing
    assert show(Measured(missing={NAME: "it fell over"})).startswith("Under load: it fell over.\n")
    assert show(Measured(), "rows") == "Not measured yet."
    assert show(Measured(), "environment").count("not measured yet") == 2
    # Who serves one client at a time holds one connection.
    assert show(Measured(), f"row {ONE_AT_A_TIME}") == "Under load: not measured yet."


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_of_what_was_measured() -> None:
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


def test_a_row_of_idle_connections_alone() -> None:
    under_load, idle = show(Measured(idle={NAME: Idle(connections=1_000)})).split("\n\n")
    assert under_load == "Under load: not measured yet."
    assert cells(idle.splitlines()[-1]) == ["1000", UNKNOWN, UNKNOWN, UNKNOWN]
