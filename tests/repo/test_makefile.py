"""What each target of the Makefile runs, and its exit code: in an empty folder, whose programs note their arguments."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OF_THE_MACHINE = ["python3", "docker", "id", "sudo", "apt-get"]
PROGRAMS = ["python", "lab", "ruff", "codespell", "lint-imports", "zizmor", "mypy", "pre-commit", "uv"]

# Notes the name under which it was called, its arguments, and whether Docker is required; fails as a file says.
PROGRAM = """#!/bin/sh
said="${0##*/}${*:+ $*}"
echo "$said${LAB_REQUIRE_DOCKER:+ (LAB_REQUIRE_DOCKER=$LAB_REQUIRE_DOCKER)}" >> asked
while IFS='|' read -r start code out; do
  case "$said" in "$start"*) [ -z "$out" ] || echo "$out"; exit "$code" ;; esac
done < answers
"""


@dataclass
class Made:
    """A run of make.

    Args:
        asked: a line for each program that was started, in their order.
    """

    code: int
    asked: list[str] = field(default_factory=list)


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run a target with programs that succeed unless told otherwise; everything is installed.

    Args of the function:
        words: the target, and variables.
        answers: by the beginning of a program's line, its exit code and what it prints.
    """
    bin_folder, path = tmp_path / ".venv" / "bin", tmp_path / "path"
    for folder in (bin_folder, path, tmp_path / "requirements" / "docs", tmp_path / "results"):
        folder.mkdir(parents=True, exist_ok=True)
    for program in [*(bin_folder / name for name in PROGRAMS), *(path / name for name in OF_THE_MACHINE)]:
        program.write_text(PROGRAM)
        program.chmod(0o755)
    for name in ("lab", "dev", "docs/docs"):
        (tmp_path / "requirements" / f"{name}.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("lab", "dev", "docs"):  # each is made of the one before
        (tmp_path / ".venv" / f"{name}.stamp").touch()

    def run(*words: str, answers: Iterable[tuple[str, int, str]] = ()) -> Made:
        (tmp_path / "asked").write_text("")
        (tmp_path / "answers").write_text("".join(f"{start}|{code}|{out}\n" for start, code, out in answers))
        # Without the variables of a `make` that runs these tests.
        environ = {"PATH": f"{path}:{os.environ['PATH']}"}
        command = ["make", "--directory", str(tmp_path), *words]
        done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return Made(done.returncode, (tmp_path / "asked").read_text().splitlines())

    return run


ENSURE, BASE = "python3 -m lab.engine ensure", "python3 -m lab.engine base"
PYTEST = "python -m pytest"
PARALLEL = "--dist loadgroup --no-loadscope-reorder"
REQUIRED = "(LAB_REQUIRE_DOCKER=1)"
DOCS = [
    f"python -m tools.docs.{name}" for name in ["models_page", "scenes", "gallery_page", "commands", "http_servers"]
]


def fuzz(runs: str, cases: str, inputs: str) -> list[str]:
    """Return what `make fuzz` runs."""
    parts = (("campaign", 200, "resp", "new fuzz/corpus"), ("http_campaign", 300, "http", "http_new fuzz/http_corpus"))
    return [
        *(
            f"python -m fuzz.{name} -runs={runs} -timeout=10 -max_len={longest} -dict=fuzz/{words}.dict "
            f"-artifact_prefix=results/fuzz/ results/fuzz/{places}"
            for name, longest, words, places in parts
        ),
        f"python -m fuzz.http_differential --cases {cases}",
        f"python -m fuzz.live --inputs {inputs}",
    ]


RUNS = {
    "demo": [ENSURE, BASE, "lab demo"],
    "test MUTANT_SECONDS=": [ENSURE, BASE, f"{PYTEST} --numprocesses 6 {PARALLEL} {REQUIRED}"],
    "test TESTS=tests/a WORKERS=3": [ENSURE, BASE, f"{PYTEST} --numprocesses 3 {PARALLEL} tests/a {REQUIRED}"],
    "engine": ["python3 -m lab.engine install", BASE],
    "install": [],
    "up": ["lab up"],
    "down": ["lab down"],
    "ps": ["lab ls"],
    "logs": ["lab logs"],
    "shell": ["lab shell"],
    "check": ["lab check"],
    "doctor": ["lab doctor"],
    "tour": [ENSURE, BASE, "lab tour --all"],
    "xray": ["python -m tools.docs.record_xray", *DOCS],
    "xray MODELS='a b'": ["python -m tools.docs.record_xray a b", *DOCS],
    "gallery": [ENSURE, BASE, "python -m tools.docs.record_gallery"],
    "load": ["lab up", "lab load"],
    "swarm-demo": [ENSURE, BASE, "python -m tools.swarm_demo"],
    "nogil": [ENSURE, BASE, "python -m benchmarks.nogil"],
    "bench": [ENSURE, BASE, "lab bench"],
    "bench-quick": [ENSURE, BASE, "lab bench --quick"],
    "bench-hold": [ENSURE, BASE, "lab bench --quick", "lab compare baseline latest"],
    "baseline": [ENSURE, BASE, "lab bench --quick --rounds 7", "lab bench --show latest --export baseline"],
    "bench-parser": ["python -m benchmarks.parser"],
    "bench-up": ["python -m benchmarks.up"],
    "faults": ["lab faults"],
    "soak": [ENSURE, BASE, "lab soak --duration 10m"],
    "soak MINUTES=60": [ENSURE, BASE, "lab soak --duration 60m"],
    "fuzz": fuzz("1000000", "100000", "10000"),
    "fuzz RUNS=1 CASES=2 INPUTS=3": fuzz("1", "2", "3"),
    "mutants": ["python -m tools.mutants"],
    "mutants MODULES='bench lab/a.py'": ["python -m tools.mutants bench lab/a.py"],
    "lint": [
        *("ruff check", "ruff format --check", "codespell", "lint-imports --no-cache"),
        "zizmor --offline --quiet .github",
    ],
    "types": ["mypy"],
    "hooks": ["pre-commit install"],
    "fmt": ["ruff check --fix", "ruff format"],
    "docs": DOCS,
    "site": ["python -m tools.docs.site"],
    "screenshot": [ENSURE, BASE, "python -m tools.screenshot"],
    "clean": ["lab clean"],
    "clean ALL=1": ["lab clean --all"],
    "clean YES=1": ["lab clean --yes"],
    "clean ALL=1 YES=1": ["lab clean --all --yes"],
}


@pytest.mark.parametrize("words", RUNS)
def test_target_runs_its_programs_with_its_variables(make: Make, tmp_path: Path, words: str) -> None:
    (tmp_path / "benchmarks").mkdir()
    assert make(*shlex.split(words)) == Made(0, RUNS[words])


# Each with an own test below or elsewhere, or without a program of ours.
OTHERS = {"help", "test-distro", "test-packages", "bench-models", "audit", "coverage", "lock"}


def test_every_target_is_tested() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    targets = {word for line in lines if line.startswith(".PHONY:") for word in line.split()[1:]}
    assert {shlex.split(words)[0] for words in RUNS} | OTHERS == targets


@pytest.mark.parametrize("target", ["demo", "bench", "bench-quick", "bench-hold", "soak"])
def test_target_that_needs_no_engine_goes_on_where_the_user_has_to_decide(make: Make, target: str) -> None:
    """`ensure` exits with 3 then, and the lab runs as processes."""
    made = make(target, answers=[(ENSURE, 3, "")])
    assert (made.code, made.asked[0], BASE in made.asked) == (0, ENSURE, False)
    assert made.asked[1].startswith("lab ")
    assert make(target, answers=[(ENSURE, 2, "")]).asked == [ENSURE]
    assert make(target, answers=[(BASE, 2, "")]) == Made(2, [ENSURE, BASE])


@pytest.mark.parametrize("target", ["test", "tour", "gallery", "swarm-demo", "nogil", "baseline", "screenshot"])
def test_target_that_needs_an_engine_ends_without_one(make: Make, target: str) -> None:
    for code in (2, 3):
        assert make(target, answers=[(ENSURE, code, "")]) == Made(2, [ENSURE])


@pytest.mark.parametrize("words", sorted(set(RUNS) - {"install"}))
def test_failure_of_the_last_program_is_that_of_the_target(make: Make, tmp_path: Path, words: str) -> None:
    (tmp_path / "benchmarks").mkdir()
    last = RUNS[words][-1].removesuffix(f" {REQUIRED}")
    made = make(*shlex.split(words), answers=[(last, 1, "")])
    assert made.code == 2
    assert made.asked == RUNS[words]


def test_faults_are_planted_before_all_tests_and_a_survivor_ends_them(make: Make) -> None:
    planted = "python -m tools.mutants --changed --seconds 60"
    assert make("test").asked[2:] == [planted, f"{PYTEST} --numprocesses 6 {PARALLEL} {REQUIRED}"]
    assert make("test", answers=[(planted, 1, "")]) == Made(2, [ENSURE, BASE, planted])


AGAIN = f"{PYTEST} -rfEp --last-failed --last-failed-no-failures none tests/a {REQUIRED}"


@pytest.mark.parametrize(
    ("first", "again", "code", "runs"),
    [(0, 0, 0, 1), (1, 0, 0, 2), (1, 1, 2, 2), (2, 0, 2, 1), (5, 0, 2, 1)],
)
def test_only_failed_tests_are_run_once_more(make: Make, first: int, again: int, code: int, runs: int) -> None:
    """pytest exits with 1 if a test failed; whatever else is wrong stays wrong."""
    answers = [(f"{PYTEST} --numprocesses", first, ""), (f"{PYTEST} -rfEp", again, "")]
    made = make("test", "TESTS=tests/a", "RETRY=1", answers=answers)
    assert made.code == code
    assert made.asked[2:] == [f"{PYTEST} --numprocesses 6 {PARALLEL} tests/a {REQUIRED}", AGAIN][:runs]
    assert make("test", "TESTS=tests/a", answers=answers).asked[3:] == []


def test_baseline_is_kept_unless_there_is_a_new_one(make: Make, tmp_path: Path) -> None:
    kept = tmp_path / "benchmarks" / "baseline.json"
    kept.parent.mkdir()
    kept.write_text("the old one\n")
    export = "lab bench --show latest --export baseline"
    assert make("baseline", answers=[(export, 2, "half of it")]).code == 2
    assert kept.read_text() == "the old one\n"
    assert make("baseline", answers=[(export, 0, "a new one")]).code == 0
    assert kept.read_text() == "a new one\n"


def test_run_that_did_not_hold_is_not_compared(make: Make) -> None:
    assert make("bench-hold", answers=[("lab bench", 1, "")]) == Made(2, [ENSURE, BASE, "lab bench --quick"])


def test_documented_models_are_those_that_are_measured(make: Make) -> None:
    list_models = "python -m tools.docs.measured --models"
    options = "--quick --workloads session,pipeline_16,http_ping --rounds 5 --duration 3s"
    asked = [ENSURE, BASE, list_models, f"lab bench a b {options}", "python -m tools.docs.measured"]
    assert make("bench-models", answers=[(list_models, 0, "a b")]) == Made(0, asked)


@pytest.mark.parametrize(
    ("words", "has_engine", "chosen", "floor"),
    [
        ([], True, "", ""),
        ([], False, " -m not docker", ""),
        # A part of the tests does not reach the floor of all.
        (["TESTS=tests/a"], True, " tests/a", " --fail-under 0"),
    ],
)
def test_coverage_is_that_of_the_tests_that_can_run(
    make: Make, words: list[str], has_engine: bool, chosen: str, floor: str
) -> None:
    made = make("coverage", *words, answers=[] if has_engine else [("docker version", 1, "")])
    required = f" {REQUIRED}" if has_engine else ""
    assert made == Made(
        0,
        [
            "docker version",
            f"python -m coverage run -m pytest --numprocesses 2 {PARALLEL}{chosen}{required}",
            "python -m coverage combine --quiet",
            "python -m coverage html --quiet --directory results/coverage/html",
            f"python -m coverage report{floor}",
        ],
    )


def test_each_lock_is_audited_until_one_has_a_vulnerability(make: Make, tmp_path: Path) -> None:
    auditor = tmp_path / ".venv" / "audit" / "bin" / "pip-audit"
    auditor.parent.mkdir(parents=True)
    auditor.write_text(PROGRAM)
    auditor.chmod(0o755)
    said = "pip-audit --strict --disable-pip --require-hashes -r requirements"
    assert make("audit") == Made(0, [f"{said}/dev.txt", f"{said}/lab.txt"])
    assert make("audit", answers=[(f"{said}/dev.txt", 1, "")]) == Made(2, [f"{said}/dev.txt"])


def test_clean_ends_before_the_environment_is_removed(make: Make, tmp_path: Path) -> None:
    assert make("clean", answers=[("lab clean", 2, "")]).code == 2
    assert (tmp_path / ".venv").exists()
    assert make("clean").code == 0
    assert not (tmp_path / ".venv").exists()


PIP = "python -m pip install --quiet --quiet --disable-pip-version-check --no-compile"
LAB = [f"{PIP} --require-hashes -r requirements/lab.txt"]
LAB += [f"{PIP} --no-deps --config-settings editable_mode=compat --editable ."]
DEV = f"{PIP} --require-hashes -r requirements/dev.txt"


@pytest.mark.parametrize(
    ("changed", "target", "asked"),
    [
        ("requirements/lab.txt", "up", [*LAB, "lab up"]),
        ("pyproject.toml", "up", [*LAB, "lab up"]),
        ("requirements/dev.txt", "up", ["lab up"]),
        ("requirements/dev.txt", "types", [DEV, "mypy"]),
        ("requirements/lab.txt", "types", [*LAB, DEV, "mypy"]),
        ("requirements/docs/docs.txt", "docs", DOCS),
    ],
)
def test_what_has_changed_is_installed_once_and_before_it_is_used(
    make: Make, tmp_path: Path, changed: str, target: str, asked: list[str]
) -> None:
    os.utime(tmp_path / changed, (2**32, 2**32))
    made = make(target)
    # `python3` only says which version it is.
    assert (made.code, [line for line in made.asked if not line.startswith("python3 -c ")]) == (0, asked)
    for place in (tmp_path / ".venv").glob("*.stamp"):
        os.utime(place, (2**33, 2**33))
    assert make(target).asked == asked[-len(RUNS[target]) :]


@pytest.mark.parametrize("models", ["", "prefork trio_nursery"])
def test_suite_runs_on_the_distributions_python_as_processes(make: Make, tmp_path: Path, models: str) -> None:
    python = tmp_path / ".venv" / "distro" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PROGRAM)
    python.chmod(0o755)
    words = ["test-distro", f"DISTRO_PYTHON={tmp_path / 'path' / 'python3'}", f"MODELS={models}"]
    check = f"python -m lab --backend process --project distro check {models}".strip()
    made = make(*words)
    assert (made.code, made.asked[-1]) == (0, check)
    assert made.asked[-2] == f"{PIP} --require-hashes -r requirements/lab.txt"
    assert make(*words, answers=[(check, 1, "")]).code == 2


COMPILE = "uv pip compile --quiet --generate-hashes --universal --python-version"
OF_LOCK = "--no-emit-index-url --no-emit-find-links --custom-compile-command make lock"


@pytest.mark.parametrize("upgrade", ["", "--upgrade"])
def test_each_part_is_locked_for_the_python_that_runs_it(make: Make, tmp_path: Path, upgrade: str) -> None:
    servers = tmp_path / "requirements" / "servers"
    servers.mkdir()
    (servers / "uvicorn.in").touch()
    # What lists the extras of pyproject.toml.
    made = make("lock", f"UPGRADE={upgrade}", answers=[("python3 -c import sys, tomllib;", 0, "gevent trio")])
    assert made.code == 0
    usual = " ".join(filter(None, [f"{COMPILE} 3.11 {OF_LOCK}", upgrade]))
    assert [line for line in made.asked if line.startswith("uv ")] == [
        f"{usual} pyproject.toml --extra gevent --extra trio -o requirements/lab.txt",
        f"{usual} pyproject.toml --all-extras -c requirements/lab.txt -o requirements/dev.txt",
        f"{usual} - -c requirements/lab.txt -o requirements/gevent.txt",
        f"{usual} - -c requirements/lab.txt -o requirements/trio.txt",
        f"{usual.replace('3.11', '3.13')} requirements/servers/uvicorn.in -c requirements/lab.txt "
        "-o requirements/servers/uvicorn.txt",
        f"{usual} - -o requirements/audit/audit.txt",
        f"{usual} - -o requirements/docs/docs.txt",
    ]


@pytest.mark.parametrize(("user", "program"), [("0", "apt-get"), ("1000", "sudo apt-get")])
def test_packages_are_installed_by_root(make: Make, user: str, program: str) -> None:
    asked = make("test-packages", answers=[("id -u", 0, user)]).asked
    assert [line for line in asked if line != "id -u"] == [
        f"{program} update --quiet --quiet",
        f"{program} install --yes --quiet --quiet --no-install-recommends python3-venv strace",
    ]
