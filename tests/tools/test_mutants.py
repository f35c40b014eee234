"""The mutation runner: which faults it plants, and what it says of each."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tools.mutants.__main__ import key_of, read_accepted, score, show, write_accepted
from tools.mutants.modules import GROUPS, ROOT
from tools.mutants.operators import find_mutants, plant

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


def find_changes(source: str, tmp_path: Path) -> list[str]:
    (tmp_path / "module.py").write_text(source)
    return [f"{mutant.code} [{mutant.change}]" for mutant in find_mutants(tmp_path / "module.py", tmp_path)]


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
    ],
)
def test_operators_plant(source: str, changes: list[str], tmp_path: Path) -> None:
    assert find_changes(source, tmp_path) == changes


def test_each_fault_changes_the_module(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    faulty = {ast.unparse(plant(path, mutant.number)) for mutant in find_mutants(path, tmp_path)}
    # LIMIT; two defaults; / and +; > of exceeds; > and 0 of the loop; its -= removed, turned, and its 1; + and 1.
    assert len(faulty) == 1 + 2 + 2 + 2 + 3 + 3 + 2
    assert ast.unparse(ast.parse(MODULE)) not in faulty


def run_session(root: Path) -> tuple[int, dict[str, Any]]:
    job = {"root": str(root), "modules": ["pkg/limits.py"], "tests": ["tests/test_limits.py"]}
    done = subprocess.run(
        [sys.executable, "-m", "tools.mutants.session"],
        input=json.dumps(job | {"seconds": None, "seed": "", "skipped": []}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
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
    code, rows = run_session(project)
    assert code == 0
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
        "count_down: count -= 1 [- -> +]": "timed out",
        "count_down: 1 [1 -> 2 in: count -= 1]": "survived",
        "nowhere: count + 1 [+ -> -]": "uncovered",
        "nowhere: 1 [1 -> 2 in: return count + 1]": "uncovered",
    }
    killer = rows["Account.ratio: self.answered + self.failed [+ -> -]"]["test"]
    assert killer == "tests/test_limits.py::test_ratio"


def test_tests_that_fail_without_a_fault_end_the_run(project: Path) -> None:
    (project / "tests" / "test_limits.py").write_text(TESTS + "\n\ndef test_fails():\n    assert exceeds(0)\n")
    code, rows = run_session(project)
    assert code != 0
    assert not rows


def test_processes_that_a_fault_leaves_behind_are_ended(project: Path) -> None:
    """Of a test that starts one and is ended, or fails, before it stops it."""
    sleeper = f"import time; time.sleep(60)  # {project.name}"
    start = (
        f"import subprocess, sys\n    subprocess.Popen([sys.executable, '-c', {sleeper!r}], start_new_session=True)\n"
    )
    (project / "tests" / "test_limits.py").write_text(
        TESTS.replace("    assert count_down", f"    {start}    assert count_down")
    )
    code, rows = run_session(project)
    assert code == 0
    assert rows["count_down: count -= 1 [removed]"]["outcome"] == "timed out"
    left = [item for item in psutil.process_iter(["cmdline"]) if sleeper in (item.info["cmdline"] or [])]
    assert left == []


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
