"""The mutation runner: which faults it plants, and what it says of each."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.support.processes import is_alive
from tests.support.waiting import wait_until
from tools.mutants import __main__ as command
from tools.mutants import modules, session
from tools.mutants.__main__ import key_of, main, read_accepted, score, share_time, show, write_accepted
from tools.mutants.changed import find_changes
from tools.mutants.faults import find_mutants, plant
from tools.mutants.modules import GROUPS, ROOT, Group
from tools.mutants.session import Job, Session

MODULE = '''"""Text with a number: 7."""

from dataclasses import dataclass

LIMIT = 2


@dataclass(frozen=True, slots=True)
class Account:
    answered: int = 0
    failed: int = 0

    @property
    def ratio(self) -> float:
        return self.failed / (self.answered + self.failed)


def exceeds(count: int) -> bool:
    return count > LIMIT


def count_down(count: int) -> int:
    while count > 0:
        count -= 1
    return count


def nowhere(count: int) -> int:
    return count + 1
'''
TESTS = """from pkg.limits import LIMIT, Account, count_down, exceeds


def test_exceeds():
    assert exceeds(3)
    assert not exceeds(1)


def test_ratio():
    assert Account(answered=3, failed=1).ratio == 0.25


def test_counts_down():
    assert count_down(2) == 0


def test_limit():
    assert LIMIT == 2
"""


def list_faults(source: str, tmp_path: Path, *, further: bool = False) -> list[str]:
    path = tmp_path / "module.py"
    path.write_text(source)
    return [f"{mutant.code} [{mutant.change}]" for mutant in find_mutants(path, tmp_path, further=further)]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x = a < b", ["a < b [< -> <=]", "a < b [< -> >]"]),
        ("x = a == b", ["a == b [== -> !=]"]),
        ("x = a + b * c", ["a + b * c [+ -> -]", "b * c [* -> /]"]),
        ("x = a and not b", ["a and (not b) [and -> or]", "not b [-> b]"]),
        ("x = max(a)", ["max(a) [-> min]"]),
        ("x = 9", ["9 [9 -> 18 in: x = 9]"]),
        ("x = True", ["True [True -> False in: x = True]"]),
        ("x = f(a, late=late)", ["f(a, late=late) [without late=]"]),
        ("x = 'a' + b", []),
        ("x = f'{a / b:.1f} of {2}'", ["a / b [/ -> *]"]),
        ("def f(x=1):\n  'text 1'\n  g(x)", ["1 [1 -> 2 in: def f(x=1):]", "g(x) [removed]"]),
        ("def f():\n  raise E(1)", ["raise E(1) [removed]"]),
        ("def f():\n  x += 1", ["x += 1 [removed]", "x += 1 [+ -> -]", "1 [1 -> 2 in: x += 1]"]),
        ("if a:\n  x = b", ["a [negated]"]),
        ("x = [a for a in b if a]", ["a [negated]"]),
        ("for a in b:\n  continue", ["continue [-> break]"]),
        ("x: Literal[1] = y", []),
        ("x = f(a, timeout=b)", ["f(a, timeout=b) [without timeout=]"]),
        ("x = f(a, strict=b, encoding=c, flush=d)", []),
        ("def f():\n  try:\n    g(a)\n  except E:\n    g(b)", ["g(b) [removed]", "g(a) [removed]"]),
        ("def f():\n  try:\n    g(a)\n  finally:\n    g(d)", ["g(a) [removed]", "g(d) [removed]"]),
        ("def f():\n  for a in b:\n    g(a)\n  else:\n    g(c)", ["g(a) [removed]", "g(c) [removed]"]),
    ],
)
def test_operators_plant(source: str, changes: list[str], tmp_path: Path) -> None:
    assert list_faults(source, tmp_path) == changes


# Source -> what is planted, and what becomes of the last statement of the function.
FURTHER = [
    ("x = a or b", [("without a", "x = b"), ("without b", "x = a")]),
    (
        "if a and f(b and c) and d: g()",
        [
            ("without a", "if f(b and c) and d: g()"),
            ("without f(b and c)", "if a and d: g()"),
            ("without d", "if a and f(b and c): g()"),
            ("without b", "if a and f(c) and d: g()"),
            ("without c", "if a and f(b) and d: g()"),
        ],
    ),
    ("a.b = 1", [("removed", "pass")]),
    ("a[b] = c[b] = 1", [("removed", "pass")]),
    ("a.b = c = 1", []),
    ("x = a.user_seconds", [(".user_seconds -> .system_seconds in: x = a.user_seconds", "x = a.system_seconds")]),
    ("x = a.no_such_field", []),
    ("try: g()\nfinally: h()", [("finally only without an exception", "if True:\n  g()\n  h()")]),
    (
        "try: g()\nexcept E: i()\nfinally: h()",
        [("finally only without an exception", "if True:\n  try: g()\n  except E: i()\n  h()")],
    ),
    ("with a: g()", [("without the context", "if True: g()")]),
    ("with a as b: g()", []),
    ("while a:\n  a.b = 1", [("removed", "while a: pass")]),
    ("try: g()\nexcept E: a.b = 1", [("removed", "try: g()\nexcept E: pass")]),
    ("match a:\n  case 1: a.b = 1", [("removed", "match a:\n  case 1: pass")]),
    ("return a.b", []),
    (
        "f(a, b.c, 1, k=d)",
        [
            ("None for a", "f(None, b.c, 1, k=d)"),
            ("a after its neighbour", "f(b.c, a, 1, k=d)"),
            ("None for b.c", "f(a, None, 1, k=d)"),
        ],
    ),
    ("x = f(1, g(a))", [("without g(a)", "x = f(1)")]),
    ("f(1, a)", [("without a", "f(1)"), ("None for a", "f(1, None)")]),
    ("f(a, 'text')", [("None for a", "f(None, 'text')")]),
    ("f(a)\nf(*a, b)\nf(1, f'{a}')", []),
    ("x = isinstance(a, b)\nx = max(a, b)", []),
    ("raise E(a, b)", []),
]


@pytest.mark.parametrize(("statement", "faults"), FURTHER, ids=[statement for statement, _ in FURTHER])
def test_further_kinds_of_faults(statement: str, faults: list[tuple[str, str]], tmp_path: Path) -> None:
    def wrap(text: str) -> str:
        return "class C:\n  def f(self):\n    y = 2\n" + "".join(f"    {line}\n" for line in text.splitlines())

    path = tmp_path / "module.py"
    path.write_text(wrap(statement))
    found = find_mutants(path, tmp_path, further=True)
    planted = [(mutant.change, ast.unparse(plant(path, mutant.number))) for mutant in found]
    assert planted == [(change, ast.unparse(ast.parse(wrap(faulty)))) for change, faulty in faults]
    assert {mutant.scope for mutant in found} <= {"C.f"}
    # The usual kinds have the numbers before, with or without these.
    usual = [mutant.number for mutant in find_mutants(path, tmp_path)]
    assert usual + [mutant.number for mutant in found] == list(range(len(usual) + len(found)))


def test_session_plants_further_kinds_instead(project: Path) -> None:
    (project / "pkg" / "limits.py").write_text("def exceeds(count, most):\n    return count > 0 and count > most\n")
    (project / "tests" / "test_limits.py").write_text(
        "from pkg.limits import exceeds\n\n\ndef test_it():\n    assert exceeds(3, 2) and not exceeds(0, -1)\n"
    )
    code, rows = run_session(project, further=True)
    assert code == 0
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "exceeds: count > 0 and count > most [without count > 0]": "killed",
        "exceeds: count > 0 and count > most [without count > most]": "survived",
    }


def test_further_faults_are_in_functions_and_keep_what_init_sets(tmp_path: Path) -> None:
    source = "a.b = 1\nclass C:\n  x = a or b\n  def __init__(self):\n    self.a = 1\n"
    assert list_faults(source, tmp_path, further=True) == ["a or b [without a]", "a or b [without b]"]


@pytest.mark.parametrize(("number", "other"), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 8), (100, 200), (0.5, 1.0)])
def test_small_numbers_are_off_by_one_and_large_ones_by_far(number: float, other: float, tmp_path: Path) -> None:
    assert list_faults(f"x = {number}", tmp_path) == [f"{number} [{number} -> {other} in: x = {number}]"]


def test_each_fault_changes_the_module(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    faulty = {ast.unparse(plant(path, mutant.number)) for mutant in find_mutants(path, tmp_path)}
    # LIMIT; two defaults; / and +; > of exceeds; > and 0 of the loop; its -= removed, turned, and its 1; + and 1.
    assert len(faulty) == 1 + 2 + 2 + 2 + 3 + 3 + 2
    assert ast.unparse(ast.parse(MODULE)) not in faulty


def run_session(root: Path, *, session: str = "session", **options: Any) -> tuple[int, dict[str, Any]]:
    job = {"root": str(root), "modules": ["pkg/limits.py"], "tests": ["tests/test_limits.py"]}
    done = subprocess.run(
        [sys.executable, "-m", f"tools.mutants.{session}"],
        input=json.dumps(job | {"seconds": None, "seed": "", "skipped": [], "first": {}, "further": False} | options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stderr.write(done.stderr)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {f"{row['scope']}: {row['code']} [{row['change']}]": row for row in rows}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "limits.py").write_text(MODULE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_limits.py").write_text(TESTS)
    return tmp_path


def test_each_fault_has_the_outcome_that_its_tests_give_it(project: Path) -> None:
    """And ends what a test of it has started, which is ended, or fails, before it has stopped that."""
    sleeper = f"import time; time.sleep(60)  # {project.name}"
    start = (
        f"import subprocess, sys\n    subprocess.Popen([sys.executable, '-c', {sleeper!r}], start_new_session=True)\n"
    )
    (project / "tests" / "test_limits.py").write_text(
        TESTS.replace("    assert count_down", f"    {start}    assert count_down")
    )
    # Each fault that makes the loop endless takes the time of a test: one of two.
    code, rows = run_session(project, skipped=["pkg/limits.py::count_down::count -= 1::- -> +"])
    assert code == 0
    left = [item for item in psutil.process_iter(["cmdline"]) if sleeper in (item.info["cmdline"] or [])]
    assert left == []
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    assert outcomes == {
        # A constant is seen in the module itself, and where it was imported by name.
        ": 2 [2 -> 3 in: LIMIT = 2]": "killed",
        "Account: 0 [0 -> 1 in: answered: int = 0]": "survived",
        "Account: 0 [0 -> 1 in: failed: int = 0]": "survived",
        "Account.ratio: self.failed / (self.answered + self.failed) [/ -> *]": "killed",
        "Account.ratio: self.answered + self.failed [+ -> -]": "killed",
        # No test asks about the limit itself.
        "exceeds: count > LIMIT [> -> >=]": "survived",
        "exceeds: count > LIMIT [> -> <]": "killed",
        "count_down: count > 0 [> -> >=]": "killed",
        "count_down: count > 0 [> -> <]": "killed",
        "count_down: 0 [0 -> 1 in: while count > 0:]": "killed",
        "count_down: count -= 1 [removed]": "timed out",
        "count_down: 1 [1 -> 2 in: count -= 1]": "survived",
        "nowhere: count + 1 [+ -> -]": "uncovered",
        "nowhere: 1 [1 -> 2 in: return count + 1]": "uncovered",
    }
    killer = rows["Account.ratio: self.answered + self.failed [+ -> -]"]["test"]
    assert killer == "tests/test_limits.py::test_ratio"


def test_constants_of_the_same_value_are_planted_one_by_one(project: Path) -> None:
    (project / "pkg" / "limits.py").write_text("MOST = 0.5\nLEAST = 0.5\n")
    (project / "tests" / "test_limits.py").write_text(
        "from pkg import limits\n\n\ndef test_limits():\n    assert (limits.MOST, limits.LEAST) == (0.5, 0.5)\n"
    )
    _, rows = run_session(project)
    assert [row["outcome"] for row in rows.values()] == ["killed", "killed"]


def test_fault_that_writes_to_another_descriptor_stays_out_of_the_report(project: Path) -> None:
    (project / "pkg" / "limits.py").write_text("STDERR = 2\n")
    (project / "tests" / "test_limits.py").write_text(
        "import os\n\nfrom pkg import limits\n\n\ndef test_limits():\n    os.write(limits.STDERR, b'said\\n')\n"
    )
    _, rows = run_session(project)
    assert list(rows) == [": 2 [2 -> 3 in: STDERR = 2]"]


def test_constant_of_the_same_name_in_another_module_stays(project: Path) -> None:
    """Two small numbers are one object, so only what a module imports tells them apart."""
    (project / "pkg" / "limits.py").write_text("_BINARY = 2\n")
    (project / "pkg" / "other.py").write_text("_BINARY = 2\n")
    (project / "tests" / "test_limits.py").write_text(
        "from pkg import limits, other\nfrom pkg.limits import _BINARY\n\n\n"
        "def test_limits():\n    assert other._BINARY == 2\n    assert limits._BINARY is _BINARY\n"
    )
    _, rows = run_session(project)
    assert [row["outcome"] for row in rows.values()] == ["survived"]


@pytest.mark.parametrize("session", ["session", "patched"])
def test_code_that_an_import_runs_is_covered_by_the_tests_of_its_module(session: str, project: Path) -> None:
    """Also in a process that gevent has patched."""
    (project / "pkg" / "limits.py").write_text("def make():\n    return 7 + 1\n\n\nMOST = make()\n")
    (project / "tests" / "test_limits.py").write_text(
        "from pkg import limits\n\n\ndef test_limits():\n    assert limits.MOST == 8\n"
    )
    _, rows = run_session(project, session=session)
    assert [row["outcome"] for row in rows.values()] == ["killed"] * 3


def test_functions_in_a_table_are_replaced(project: Path) -> None:
    """Also where a part of it has been taken out before."""
    table = "SHAPES = {'ramp': lambda share: share * 5, 'steady': lambda share: 1}"
    (project / "pkg" / "limits.py").write_text(f"{table}\n")
    (project / "tests" / "test_limits.py").write_text(
        "from pkg.limits import SHAPES\n\nRAMP = SHAPES['ramp']\n\n\ndef test_ramp():\n    assert RAMP(2) == 10\n"
    )
    _, rows = run_session(project)
    assert {name: row["outcome"] for name, row in rows.items()} == {
        ": share * 5 [* -> /]": "killed",
        f": 5 [5 -> 10 in: {table}]": "killed",
        f": 1 [1 -> 2 in: {table}]": "survived",
    }


VALUES = """import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class State(Enum):
    IDLE = 5
    BUSY = 10


@dataclass(frozen=True)
class Task:
    state: State


def make():
    return 7


"""


@pytest.mark.parametrize(
    ("statement", "right"),
    [
        ("VALUE = State(5)", "VALUE is State.IDLE"),
        ("VALUE = re.compile('A{%d}' % 5)", "VALUE.fullmatch('AAAAA')"),
        ("VALUE = Path('/a/b/c/d/e/f/g/h/i/j/k/l').parents[5]", "VALUE == Path('/a/b/c/d/e/f')"),
        ("VALUE = {'idle': State(5), 'busy': State.BUSY}", "VALUE['idle'] is State.IDLE"),
        ("VALUE = {State.IDLE: 5}", "VALUE == {State.IDLE: 5}"),
        ("VALUE = {'make': make, 'least': 5}", "VALUE == {'make': make, 'least': 5}"),
        ("VALUE = [make, 5]", "VALUE == [make, 5]"),
        ("VALUE = (Task(State.IDLE), 5)", "VALUE == (Task(State.IDLE), 5)"),
        ("VALUE = Task(State(5))", "VALUE == Task(State.IDLE)"),
        ("class VALUE:\n    STATE = State(5)", "VALUE.STATE is State.IDLE"),
        ("class VALUE:\n    PATTERN = re.compile('A{%d}' % 5)", "VALUE.PATTERN.fullmatch('AAAAA')"),
        ("class VALUE(Enum):\n    IDLE = 5", "VALUE.IDLE.value == 5"),
        ("VALUE = None if 5 < 6 else 7", "VALUE is None"),
    ],
)
def test_value_of_any_kind_is_planted_where_it_is_used(
    statement: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is of the classes that the right code has made: otherwise each test of it would notice every fault."""
    (tmp_path / "values.py").write_text(VALUES + statement)
    (tmp_path / "user.py").write_text(
        "from pathlib import Path\nfrom values import VALUE, State, Task, make\n\n\n"
        f"def is_right():\n    return {right}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("values", "user"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    user = importlib.import_module("user")
    assert user.is_right()
    *_, mutant = (each for each in find_mutants(tmp_path / "values.py", tmp_path) if each.change.startswith("5 -> 10"))
    session.put_in_place(mutant, tmp_path)
    assert user.VALUE is sys.modules["values"].VALUE
    assert not user.is_right()
    for name in ("values", "user"):
        del sys.modules[name]


TABLE = """from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    OPEN = 1


@dataclass(frozen=True)
class Limits:
    most: int


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    limits: Limits
    kind: Kind
    pace: Callable[[int], int]


def make(name: str, most: int = 7) -> Load:
    return Load(name, Limits(most + 1), Kind.OPEN, lambda share: share * 3)


_LOADS = (
    make("ping"),
    make("echo", most=5),
)
LOADS = {load.name: load for load in _LOADS}


def find(name: str) -> Load:
    return next(load for load in _LOADS if load.name == name)
"""


@pytest.mark.parametrize(("name", "most", "outcome"), [("ping", 8, "survived"), ("echo", 6, "killed")])
def test_objects_in_a_table_are_replaced_and_stay_equal(name: str, most: int, outcome: str, project: Path) -> None:
    """A fault in what makes one of them is noticed by a test of this one only."""
    (project / "pkg" / "limits.py").write_text(TABLE)
    (project / "tests" / "test_limits.py").write_text(
        "from pkg.limits import LOADS, Kind, find\n\nEARLY = LOADS['echo']\n\n\n"
        "def test_load():\n    assert find('ping') == LOADS['ping']\n    assert EARLY.pace(2) == 6\n"
        f"    assert LOADS[{name!r}].kind is Kind.OPEN\n    assert find({name!r}).limits.most == {most}\n"
    )
    _, rows = run_session(project)
    outcomes = {key: row["outcome"] for key, row in rows.items()}
    assert outcomes[": make('echo', most=5) [without most=]"] == outcome
    assert outcomes[": 5 [5 -> 10 in: _LOADS = (make('ping'), make('echo', most=5))]"] == outcome
    # What an import alone runs is covered by the tests of what it has made.
    assert outcomes["make: most + 1 [+ -> -]"] == "killed"
    # Also where one of them has been taken out before.
    assert outcomes["make: share * 3 [* -> /]"] == "killed"


def test_tests_that_fail_without_a_fault_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "tests" / "test_limits.py").write_text(TESTS + "\n\ndef test_fails():\n    assert exceeds(0)\n")
    code, rows = run_session(project)
    assert code != 0
    assert not rows
    assert "test_limits.py::test_fails" in capsys.readouterr().err


# Plants faults in the project that is its argument.
RUN_GROUP = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tools.mutants import __main__ as mutants
mutants.ROOT = Path(sys.argv[1])
group = SimpleNamespace(name="limits", patched=False, list_tests=lambda: ["tests/test_limits.py"])
mutants.run_group(group, ["pkg/limits.py"])
"""


@pytest.mark.parametrize("killed", [0, 1], ids=["command", "session"])
def test_nothing_goes_on_without_the_command_or_the_session(project: Path, killed: int) -> None:
    """Nothing else would end a loop that a fault, or a test, has made endless."""
    (project / "pkg" / "limits.py").write_text("def is_over(count: int) -> bool:\n    return count > 1\n")
    condition = "not is_over(2)" if killed else "is_over(2)"
    tests = f"from pkg.limits import is_over\n\ndef test_is_over():\n    while {condition}: pass\n"
    (project / "tests" / "test_limits.py").write_text(tests)
    with subprocess.Popen([sys.executable, "-c", RUN_GROUP, str(project)], cwd=ROOT) as command:
        # The tests of the first case never end, those of the second only with a fault, in a child of the session.
        running = wait_until(lambda: found if len(found := list_busy(command.pid)) == 1 + killed else [])
        (psutil.Process(command.pid), *running)[killed].kill()
        wait_until(lambda: not any(map(is_alive, running)))
        command.kill()


def list_busy(pid: int) -> list[psutil.Process]:
    """Return the descendants of a process, from its child on, if the last of them has computed for a while."""
    found = psutil.Process(pid).children(recursive=True)
    return found if found and found[-1].cpu_times().user > 0.2 else []


def make_row(code: str, outcome: str) -> dict[str, Any]:
    return {"module": "m.py", "scope": "f", "code": code, "change": "c", "line": 1, "number": 0, "outcome": outcome}


def test_score_leaves_out_equivalent_faults_and_counts_debts() -> None:
    rows = [make_row(str(number), outcome) for number, outcome in enumerate(["killed", "timed out", *["survived"] * 3])]
    accepted = {key_of(rows[2]): "equivalent: no difference", key_of(rows[3]): "text only: a plural"}
    # 5 faults, 1 equivalent: 4 could be noticed, and 2 were.
    assert score(rows, accepted) == (2, 4)


def test_only_survivors_that_are_not_accepted_are_new(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [make_row("a", "survived"), make_row("b", "uncovered"), make_row("c", "killed"), make_row("d", "survived")]
    new = show(rows, {key_of(rows[3]): "text only: a plural"})
    assert [row["code"] for row in new] == ["a", "b"]
    assert "25.0%" in capsys.readouterr().out


def test_accepted_faults_are_kept_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    accepted = {
        'm.py::f::x == "é"::== -> !=': "equivalent: é",
        "m.py::g::a::b": "text only",
        "m.py::h::a::b": "text only",
    }
    write_accepted(accepted, path)
    assert read_accepted(path) == accepted
    assert path.read_text().count("[[accepted]]") == 2


def test_accepted_faults_exist() -> None:
    """A list of faults that are not there any more would hide new ones of the same text."""
    keys = {
        mutant.key
        for group in GROUPS
        for module in group.list_modules()
        for mutant in find_mutants(ROOT / module, ROOT)
    }
    assert sorted(set(read_accepted()) - keys) == []


def test_fault_that_fits_nowhere_is_left_out_of_the_score() -> None:
    rows = [make_row("a", "killed"), make_row("b", "unfit"), make_row("c", "uncovered")]
    assert score(rows, {}) == (1, 2)


def test_pattern_that_matches_no_file_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"tools/mutants/modules.py: lab/gone.py matches no file"):
        Group("g", ("lab/__init__.py", "lab/gone.py"), ()).list_modules()
    group = Group("g", ("tools/mutants/p*.py", "tools/mutants/*.py"), ())
    assert group.list_modules()[0] == "tools/mutants/patched.py"
    assert len(group.list_modules()) == len({*group.list_modules()})


@pytest.fixture
def run_main(monkeypatch, tmp_path, capsys):
    """Runs the command without sessions: each module of two groups has two survivors.

    Gives the exit code, the lines of stdout, and what was asked of the sessions.
    """
    groups = (Group("one", ("b.py", "a.py"), ()), Group("two", ("c.py",), (), patched=True))
    monkeypatch.setattr(Group, "list_modules", lambda self: [*self.modules])
    monkeypatch.setattr(command, "GROUPS", groups)
    monkeypatch.setattr(command, "ACCEPTED", tmp_path / "accepted.toml")
    monkeypatch.setattr(command, "count_untried", lambda *_, further: 0)
    asked: list[tuple[Any, ...]] = []

    def run(*arguments, fails=False):
        def run_group(group, modules, *, seconds, seed, skipped, first, further):
            asked.append((group.name, modules, seconds, sorted(skipped), *["further"] * further))
            if fails:
                raise RuntimeError("without any fault, these tests fail: x")
            places = [(module, line) for module in modules for line in (10, 9)]
            return [make_row(f"c{line}", "survived") | {"module": module, "line": line} for module, line in places]

        asked.clear()
        monkeypatch.setattr(command, "run_group", run_group)
        code = main(arguments)
        return code, capsys.readouterr().out.splitlines(), sorted(asked)

    return run


def key(module: str, line: int) -> str:
    return f"{module}::f::c{line}::c"


def test_survivors_are_listed_by_module_and_line(run_main) -> None:
    code, lines, asked = run_main()
    assert code == 1
    assert asked == [("one", ["b.py", "a.py"], None, []), ("two", ["c.py"], None, [])]
    survivors = [line.split(": survived")[0] for line in lines if ": survived" in line]
    assert survivors == ["a.py:9", "a.py:10", "b.py:9", "b.py:10", "c.py:9", "c.py:10"]


def test_name_of_a_group_stands_for_its_modules(run_main) -> None:
    assert [asked[:2] for asked in run_main("one")[2]] == [("one", ["b.py", "a.py"])]
    assert [asked[:2] for asked in run_main("a.py", "two")[2]] == [("one", ["a.py"]), ("two", ["c.py"])]
    with pytest.raises(SystemExit) as ended:
        run_main("gone")
    assert ended.value.code == 2


def test_tests_that_fail_without_a_fault_have_exit_code_2(run_main) -> None:
    assert run_main("one", fails=True)[0] == 2


def test_accepting_keeps_what_was_accepted_before(run_main) -> None:
    write_accepted({"gone.py::f::x::c": "equivalent", key("a.py", 9): "text only"}, command.ACCEPTED)
    assert run_main("a.py", "--accept", "a debt")[0] == 0
    assert read_accepted(command.ACCEPTED) == {
        "gone.py::f::x::c": "equivalent",
        key("a.py", 9): "text only",
        key("a.py", 10): "a debt",
    }


def test_accepted_faults_that_are_noticed_now_are_named_after_a_whole_run(run_main) -> None:
    write_accepted({"gone.py::f::x::c": "equivalent", key("a.py", 9): "text only"}, command.ACCEPTED)
    said = [line for line in run_main()[1] if line.startswith("accepted, but")]
    assert said == ["accepted, but noticed now or gone: gone.py::f::x::c"]
    # A part says nothing of the others.
    assert not [line for line in run_main("one")[1] if line.startswith("accepted, but")]


def test_further_kinds_are_listed_and_never_accepted(run_main) -> None:
    code, lines, asked = run_main("--further")
    assert code == 1
    assert asked == [("one", ["b.py", "a.py"], None, [], "further"), ("two", ["c.py"], None, [], "further")]
    assert not [line for line in lines if line.startswith("accepted, but")]
    with pytest.raises(SystemExit) as ended:
        run_main("one", "--further", "--accept", "a debt")
    assert ended.value.code == 2


def test_accepted_faults_take_no_time_of_a_sample(run_main) -> None:
    write_accepted({key("a.py", 9): "text only"}, command.ACCEPTED)
    assert run_main("one", "--seconds", "60")[2] == [("one", ["b.py", "a.py"], 60, [key("a.py", 9)])]
    # A whole run tries them again.
    assert run_main("one")[2] == [("one", ["b.py", "a.py"], None, [])]


@pytest.mark.parametrize(("patched", "name"), [(False, "session"), (True, "patched")])
def test_group_that_imports_locust_has_a_process_that_is_patched(monkeypatch, patched: bool, name: str) -> None:
    started: list[tuple[str, dict[str, Any]]] = []

    def start(words: list[str], *, input: str, **_: Any) -> Any:  # noqa: A002 - subprocess's name
        started.append((words[-1], json.loads(input)))
        return subprocess.CompletedProcess(words, 0, '{"a": 1}\n', "")

    monkeypatch.setattr("subprocess.run", start)
    group = Group("g", (), ("tests/tools/test_site.py",), patched=patched)
    rows = command.run_group(
        group, ["m.py"], seconds=5.0, seed="s", skipped={"b", "a"}, first={"m.py": {9, 3}}, further=patched
    )
    assert rows == [{"a": 1}]
    ((module, job),) = started
    assert module == f"tools.mutants.{name}"
    assert job == {
        "root": str(ROOT),
        "modules": ["m.py"],
        "tests": ["tests/tools/test_site.py"],
        "seconds": 5.0,
        "seed": "s",
        "skipped": ["a", "b"],
        "first": {"m.py": [3, 9]},
        "further": patched,
    }


def test_session_that_fails_is_an_error_with_its_last_words(monkeypatch) -> None:
    done = subprocess.CompletedProcess([], 1, "", "x" * 3000 + "end")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match=r"^g: exit code 1: x{1997}end$"):
        command.run_group(Group("g", (), ()), [])


def test_test_that_has_noticed_most_is_asked_first_and_then_the_quickest() -> None:
    class Item:
        def __init__(self, nodeid: str) -> None:
            self.nodeid = nodeid

    found: Any = Session(Job(ROOT, (), ()), None)
    found.items = [Item(name) for name in ("quick", "slower", "noticed", "slow")]
    found.durations = {"quick": 0.01, "slower": 0.1, "noticed": 0.2, "slow": 0.6}
    found.kills.update({"noticed": 3, "slower": 1, "slow": 9})
    found._find_tests = lambda mutant: found.items
    assert [item.nodeid for item in found._tests_of(None)] == ["noticed", "slower", "quick", "slow"]


@pytest.mark.parametrize(("duration", "most"), [(0.0, 5.0), (0.5, 5.0), (0.6, 6.0)])
def test_test_with_a_fault_may_take_ten_times_as_long_and_at_least_five_seconds(duration: float, most: float) -> None:
    assert session.limit_time(duration) == most


def test_session_runs_no_test_that_needs_containers() -> None:
    arguments = " ".join(session.make_arguments(["tests/a.py", "tests/b.py"]))
    assert " -m not docker " in arguments
    assert arguments.endswith(" -o addopts=--import-mode=importlib tests/a.py tests/b.py")


class EndedError(Exception):
    """What ends a session, or a child of it."""


def test_session_ends_when_tests_cannot_be_collected() -> None:
    pytest_session: Any = SimpleNamespace(testsfailed=2, Interrupted=EndedError, items=[])
    with pytest.raises(EndedError, match="2 errors during collection"):
        Session(Job(ROOT, (), ()), None).pytest_runtestloop(pytest_session)


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError(), b"unfit"), (TypeError(), b"killed")], ids=["unfit", "other"]
)
def test_fault_that_does_not_fit_is_unfit_and_any_other_error_notices_it(monkeypatch, error, said) -> None:
    """In this process instead of a child of its own."""

    def put_in_place(mutant, root):
        raise error

    def end(code):
        raise EndedError

    reading, writing = os.pipe()
    monkeypatch.setattr(session, "put_in_place", put_in_place)
    monkeypatch.setattr(session, "die_with_lab", lambda: None)
    monkeypatch.setattr("os.setpgid", lambda *_: None)
    monkeypatch.setattr("os._exit", end)
    mutant: Any = None
    with pytest.raises(EndedError):
        session._be_child(mutant, ROOT, [], writing)
    assert os.read(reading, 100) == said
    os.close(reading)
    os.close(writing)


@pytest.fixture
def git(project, monkeypatch):
    """Runs git in the project, which is a repository with one commit on `main`."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    who = [f"{role}_{what}" for role in ("GIT_AUTHOR", "GIT_COMMITTER") for what in ("NAME", "EMAIL")]
    for name in who:
        monkeypatch.setenv(name, "tester")

    def run(*arguments, root=project):
        subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)

    run("init", "--quiet", "--initial-branch=main")
    run("add", ".")
    run("commit", "--quiet", "--message=first")
    return run


def clone(git, project, name, *options):
    git("clone", "--quiet", *options, f"file://{project}", str(project / name))
    return project / name


@pytest.fixture
def run_changed(monkeypatch, capsys):
    """Runs the command on the project at a folder, as `make test` does; gives its exit code and its lines."""

    def run(root, *, seconds="60"):
        monkeypatch.setattr(modules, "ROOT", root)
        monkeypatch.setattr(command, "ROOT", root)
        monkeypatch.setattr(command, "ACCEPTED", root / "accepted.toml")
        monkeypatch.setattr(command, "GROUPS", (Group("limits", ("pkg/limits.py",), ("tests/test_limits.py",)),))
        code = main(["--changed", "--seconds", seconds])
        return code, capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("options", [(), ("--depth=1",)], ids=["whole", "shallow"])
@pytest.mark.parametrize("is_detached", [False, True], ids=["branch", "detached"])
def test_clone_without_a_change_passes_at_once(git, project, run_changed, options, is_detached):
    root = clone(git, project, "clone", *options)
    if is_detached:
        git("checkout", "--quiet", "--detach", root=root)
    (root / "README.md").write_text("no module")
    assert run_changed(root) == (
        0,
        [
            "mutants: no fault was planted, since no module that has them differs from the merge base with origin/main",
        ],
    )


def test_checkout_of_one_commit_without_a_branch_passes_and_says_why(git, project, run_changed):
    root = project / "checkout"
    git("init", "--quiet", str(root))
    git("fetch", "--quiet", "--depth=1", f"file://{project}", "main", root=root)
    git("checkout", "--quiet", "FETCH_HEAD", root=root)
    code, (line,) = run_changed(root)
    assert code == 0
    assert line.endswith("nor a commit before the last one is in this clone")


def test_archive_without_a_repository_passes_and_says_why(project, run_changed):
    code, (line,) = run_changed(project)
    assert code == 0
    assert "not a git repository" in line


def test_archive_inside_another_repository_passes_and_says_why(git, project, run_changed):
    root = project / "archive"
    (project / "pkg").rename(root)
    code, (line,) = run_changed(root)
    assert code == 0
    assert line.endswith(f"{root} is a source archive inside another repository, {project}")


def test_machine_without_git_passes_and_says_why(git, project, run_changed, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    assert run_changed(project) == (
        0,
        ["mutants: no fault was planted, since what has changed is not known: there is no git here"],
    )


def test_changes_are_those_since_the_branch_left_the_main_one(git, project):
    root = clone(git, project, "clone")
    git("checkout", "--quiet", "-b", "topic", root=root)
    (root / "pkg" / "limits.py").write_text(MODULE.replace("LIMIT = 2", "LIMIT = 3"))
    git("commit", "--quiet", "--all", "--message=second", root=root)
    (root / "tests" / "test_limits.py").write_text(TESTS + "\n\n")
    (root / "pkg" / "new.py").touch()
    # The main branch has gone on meanwhile.
    (project / "pkg" / "__init__.py").write_text("X = 1\n")
    git("commit", "--quiet", "--all", "--message=other")
    git("fetch", "--quiet", root=root)
    found = find_changes(root)
    assert found.since == "the merge base with origin/main"
    assert found.lines == {
        "pkg/limits.py": {MODULE.splitlines().index("LIMIT = 2") + 1},
        "tests/test_limits.py": {len(TESTS.splitlines()) + number for number in (1, 2)},
        "pkg/new.py": set(),
    }


def test_main_branch_of_origin_may_have_any_name(git, project):
    git("branch", "--move", "main", "trunk")
    root = clone(git, project, "clone")
    (root / "pkg" / "limits.py").write_text(MODULE)
    assert find_changes(root).since == "the merge base with origin/trunk"


def test_changes_without_origin_are_those_of_the_last_commit(git, project):
    (project / "pkg" / "limits.py").write_text(MODULE.replace("LIMIT = 2", "LIMIT = 3"))
    git("commit", "--quiet", "--all", "--message=second")
    found = find_changes(project)
    assert found.since == "the commit before the last one"
    assert list(found.lines) == ["pkg/limits.py"]


SMALL = "def exceeds(count: int) -> bool:\n    return count > 2\n"
SMALL_TESTS = "from pkg.limits import exceeds\n\n\ndef test_exceeds():\n    assert not exceeds(1)\n"


@pytest.fixture
def changed(git, project):
    """A clone with a module that has changed, whose test notices one of its three faults: `>` -> `<`."""
    root = clone(git, project, "clone")
    (root / "pkg" / "limits.py").write_text(SMALL)
    (root / "tests" / "test_limits.py").write_text(SMALL_TESTS)
    return root


def test_survivor_in_a_changed_module_fails_until_it_is_accepted(changed, run_changed):
    code, lines = run_changed(changed)
    assert code == 1
    assert "pkg/limits.py:2: survived: in exceeds: count > 2  [> -> >=]" in lines
    assert "Write a test that fails with it, or accept it in tools/mutants/accepted.toml" in lines[-1]
    keys = [f"pkg/limits.py::exceeds::{code}" for code in ("count > 2::> -> >=", "2::2 -> 3 in: return count > 2")]
    write_accepted(dict.fromkeys(keys, "text only"), changed / "accepted.toml")
    code, lines = run_changed(changed)
    assert (code, lines[-1]) == (0, "all: 1 of 1 noticed (100.0%); 1 killed")
    # A test for each, and nothing has to be accepted.
    (changed / "accepted.toml").unlink()
    (changed / "tests" / "test_limits.py").write_text(
        SMALL_TESTS + "    assert not exceeds(2)\n    assert exceeds(3)\n"
    )
    code, lines = run_changed(changed)
    assert (code, lines[-1]) == (0, "all: 3 of 3 noticed (100.0%); 3 killed")


def test_faults_that_there_is_no_time_for_are_counted_and_pass(changed, run_changed):
    code, lines = run_changed(changed, seconds="0")
    assert code == 0
    assert lines[-1] == "3 more faults were not tried: the 0 seconds were over"


def test_fault_that_is_cut_short_is_not_judged(project):
    """Its tests never end, and the time of the whole run is shorter than that of a fault."""
    line = MODULE.splitlines().index("        count -= 1") + 1
    code, rows = run_session(project, seconds=3.0, first={"pkg/limits.py": [line]})
    assert code == 0
    assert "count_down: count -= 1 [removed]" not in rows


def test_faults_of_changed_lines_come_first(project):
    path = project / "pkg" / "limits.py"
    line = MODULE.splitlines().index("    return count > LIMIT") + 1
    job = Job(project, ("pkg/limits.py",), (), seconds=60.0, seed="a", first={"pkg/limits.py": [line]})
    order = Session(job, None)._choose()
    assert [mutant.line == line for mutant in order] == [True] * 2 + [False] * (len(find_mutants(path, project)) - 2)


def test_slow_tests_are_asked_where_quick_ones_notice_nothing(project):
    (project / "pkg" / "limits.py").write_text(SMALL)
    slow = "\n\ndef test_slow():\n    import time\n\n    assert not exceeds(2)\n    time.sleep(2.1)\n"
    (project / "tests" / "test_limits.py").write_text(SMALL_TESTS + slow)
    _, rows = run_session(project, skipped=["pkg/limits.py::exceeds::2::2 -> 3 in: return count > 2"])
    assert {name: row["test"] for name, row in rows.items()} == {
        "exceeds: count > 2 [> -> >=]": "tests/test_limits.py::test_slow",
        "exceeds: count > 2 [> -> <]": "tests/test_limits.py::test_exceeds",
    }


@pytest.mark.parametrize(
    ("groups", "seconds", "shared"),
    # Two at a time; as many as can have 20 s each; at least two.
    [(1, 60, (1, 60)), (2, 60, (2, 60)), (3, 60, (3, 30)), (5, 60, (5, 20)), (26, 60, (6, 20)), (26, 10, (2, 10))],
)
def test_time_is_shared_by_the_groups(groups, seconds, shared):
    assert share_time(groups, seconds) == shared


def test_make_test_plants_faults_only_before_all_tests():
    def show_recipe(*arguments):
        # Not with what the `make` has that runs these tests.
        own = ("MAKEFLAGS", "MUTANT_SECONDS", "RETRY")
        environ = {name: value for name, value in os.environ.items() if name not in own}
        command = ["make", "--dry-run", "test", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if "tools.mutants" in line or "-m pytest" in line]

    first, second = show_recipe()
    assert first == ".venv/bin/python -m tools.mutants --changed --seconds 60"
    assert "-m pytest" in second
    for argument in ("TESTS=tests/tools", "MUTANT_SECONDS="):
        (only,) = show_recipe(argument)
        assert "-m pytest" in only
    assert "--last-failed" not in second
    assert "--last-failed" in show_recipe("RETRY=1")[-1]
