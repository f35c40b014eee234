"""The exit codes of all commands: 0 held, 1 did not hold, 2 could not run, 130 interrupted."""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import click
import pytest

import lab.servers.doctor
from lab.base import interrupts
from lab.base.errors import LabError
from lab.cli import main
from lab.experiments import demo, store
from lab.experiments.conformance.results import ModelResult
from lab.servers.catalogue import Catalogue
from lab.servers.doctor import Finding
from lab.servers.processes import Processes


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    """Yield a project with a running plain_socket."""
    backend = Processes(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(["plain_socket"])
        yield backend.project
    finally:
        backend.down()


Run = Callable[..., int]


@pytest.fixture
def run(run_here: Run, running: str) -> Run:
    """Run `lab` in this process with the project that is running."""
    return partial(run_here, "--backend", "process", "--project", running)


def fail(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("callback", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: sys.exit(0), 0, ""),
        (lambda: sys.exit(None), 0, ""),
        (lambda: sys.exit(1), 1, ""),
        (lambda: sys.exit(7), 7, ""),
        (lambda: click.get_current_context().exit(1), 1, ""),
        (fail(LabError("no such thing")), 2, "lab: no such thing\n"),
        (fail(click.UsageError("not so")), 2, "Error: not so\n"),
        # Those of click would have exit code 1.
        (fail(click.ClickException("not so")), 2, "Error: not so\n"),
        (fail(click.FileError("a", "no such file")), 2, "Error: Could not open file 'a': no such file\n"),
        (fail(KeyboardInterrupt()), 130, "\nlab: interrupted\n"),
        (fail(click.Abort()), 130, "lab: interrupted\n"),
        (fail(BrokenPipeError(errno.EPIPE, "Broken pipe")), 2, "lab: a process that this command was talking to"),
        (fail(OSError(errno.ENOSPC, "No space left", "/a/file")), 2, "lab: /a/file: No space left\n"),
        (fail(PermissionError(errno.EACCES, "Permission denied", "/a")), 2, "lab: /a: Permission denied\n"),
    ],
)
def test_error_decides_the_exit_code(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    callback: Callable[[], object],
    code: int,
    said: str,
) -> None:
    monkeypatch.setitem(main.cli.commands, "ends", click.Command("ends", callback=callback))
    assert run("ends") == code
    stderr = capsys.readouterr().err
    assert said in stderr
    assert bool(said) == bool(stderr)
    assert "Traceback" not in stderr


@pytest.mark.parametrize("error", [None, LabError("it cannot be removed")])
def test_clean_up_that_an_interrupt_has_kept_from_its_start_is_done(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: LabError | None
) -> None:
    done: list[int] = []

    def take_down() -> None:
        done.append(1)
        if error:
            raise error

    def end() -> None:
        # A signal between the end of the block of `sure` and the call.
        interrupts._owed.append(take_down)
        raise KeyboardInterrupt

    monkeypatch.setitem(main.cli.commands, "ends", click.Command("ends", callback=end))
    assert run("ends") == 130
    assert done == [1]
    assert not interrupts._owed
    stderr = capsys.readouterr().err
    assert stderr.lstrip("\n") == "lab: interrupted\n" + (f"lab: {error}\n" if error else "")


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), OSError(errno.ENOENT, "No such file", "/a")])
def test_bug_of_the_lab_is_not_exit_code_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """Exit code 1 would mean that a server did not hold. The traceback is printed."""
    monkeypatch.setitem(main.cli.commands, "ends", click.Command("ends", callback=fail(error)))
    assert run("ends") == 2
    stderr = capsys.readouterr().err
    assert "Traceback" in stderr
    assert "lab: " in stderr


@pytest.mark.parametrize(
    ("name", "path", "is_traced"),
    [
        *((name, "/a", False) for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM")),
        *((name, "/a", False) for name in ("EACCES", "EPERM", "ENOTDIR")),
        ("ENOENT", "/a", True),
        ("EMFILE", None, True),  # nothing says what it was about
    ],
)
def test_error_of_the_machine_with_a_path_needs_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, path: str | None, is_traced: bool
) -> None:
    def end(**_: object) -> None:
        raise OSError(getattr(errno, name), "it says why", path)

    monkeypatch.setattr(main.cli, "main", end)
    assert main._run() == 2
    stderr = capsys.readouterr().err
    assert stderr.endswith(f"lab: {path or 'the system refused a request'}: it says why\n")
    assert ("Traceback" in stderr) == is_traced


def test_options_reach_the_backends_and_processes_that_a_command_opens(
    run_here: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[tuple[str | None, ...]] = []

    def note() -> None:
        opened = click.get_current_context().obj
        variables = (os.environ.get("LAB_PROJECT"), os.environ.get("LAB_BACKEND"))
        found.append((*variables, opened.project, opened.backend_name, str(opened.file)))

    monkeypatch.setitem(main.cli.commands, "notes", click.Command("notes", callback=note))
    monkeypatch.delenv("LAB_COMPOSE_FILE", raising=False)
    assert run_here("--project", "mine", "--backend", "process", "--file", "a.yaml", "notes") == 0
    assert run_here("notes") == 0
    monkeypatch.setenv("LAB_COMPOSE_FILE", "b.yaml")
    assert run_here("notes") == 0
    assert found == [
        ("mine", "process", "mine", "process", "a.yaml"),
        (None, None, None, None, "None"),
        (None, None, None, None, "b.yaml"),
    ]


def test_version_is_that_of_the_package(run_here: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_here("--version") == 0
    assert capfd.readouterr().out == f"lab {version('socketlab')}\n"


COULD_NOT_RUN = {
    "up": ["up", "nonesuch"],
    "logs": ["logs", "nonesuch"],
    "call": ["call", "nonesuch", "greet"],
    "check": ["check", "nonesuch"],
    "shell": ["shell", "nonesuch"],
    "new": ["new", "No-Name"],
    "load": ["load", "nonesuch", "--headless"],
    "load, a condition": ["load", "--headless", "--fail-if", "rate < 0"],
    "load, a folder": ["load", "--headless", "--duration", "9s", "--out", "/proc/nothing"],
    "load-gallery": ["load-gallery", "ftp"],
    "load-file": ["load-file", "nonesuch"],
    "faults": ["faults", "nonesuch"],
    "faults, none named": ["faults", "--now", "kill"],
    "faults, a folder": ["faults", "plain_socket", "--out", "/proc/nothing"],
    "faults, a file": ["faults", "plain_socket", "--output", __file__],
    "soak": ["soak", "nonesuch"],
    "soak, a folder": ["soak", "plain_socket", "--out", "/proc/nothing"],
    "xray": ["xray", "nonesuch"],
    "xray, no recording": ["xray", "--show", __file__],
    "tour": ["tour", "nonesuch"],
    "bench": ["bench", "nonesuch"],
    "bench, no run": ["bench", "--show", "nonesuch"],
    "compare": ["compare", "nonesuch", "nonesuch"],
    "advise": ["advise", "--connections", "1", "--rate", "1", "--service-time", "1ms", "--cpu", "2ms"],
    "demo": ["demo", "nonesuch"],
}


@pytest.mark.parametrize("arguments", COULD_NOT_RUN.values(), ids=COULD_NOT_RUN)
def test_command_that_cannot_run_is_exit_code_2(
    run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(__file__).read_bytes()
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("lab: ")
    assert Path(__file__).read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--show"),
        ("bench", "--resume"),
        ("compare",),
        ("compare", "baseline"),
        ("demo", "--show"),
        ("faults", "--show"),
        ("soak", "--show"),
    ],
    ids=" ".join,
)
def test_run_that_is_named_is_the_one_that_is_read(
    run: Run, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the latest one, which another name would find as well."""
    asked = []

    def find(text: str | None, name: str, *, root: Path) -> store.Run:
        asked.append((text, name, root))
        raise LabError("that is all")

    monkeypatch.setattr(store.Run, "find", find)
    named = ["an earlier one", *(["another"] if words == ("compare",) else [])]
    assert run(*words, *named, "--out", str(tmp_path)) == 2
    assert asked == [("an earlier one", "bench" if words[0] == "compare" else words[0], tmp_path)]


def test_every_command_has_a_case_that_cannot_run() -> None:
    always = {"down", "ls", "doctor", "clean"}
    assert {words[0] for words in COULD_NOT_RUN.values()} == set(main.cli.commands) - always


def test_shell_ended_by_a_signal_has_the_shells_exit_code(run: Run) -> None:
    assert run("shell", "-c", "exit 3") == 3
    assert run("shell", "-c", "kill -TERM $$") == 128 + 15


def test_load_is_exit_code_1_if_a_condition_is_met(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    conditions = ("rate < 1", "failures > 0", "p50 > 1us", "rate > 0")
    options = [word for condition in conditions for word in ("--fail-if", condition)]
    assert run("load", "--users", "1", "--duration", "800ms", "--warm-up", "100ms", *options) == 1
    captured = capfd.readouterr()
    assert "plain_socket" in captured.out
    named = [condition for condition in conditions if f"plain_socket: {condition} (" in captured.err]
    assert named == ["p50 > 1us", "rate > 0"]


def test_results_of_load_are_numbered(run: Run, tmp_path: Path) -> None:
    usual = [
        "load",
        "--preset",
        "closed_echo_1k",
        "--users",
        "1",
        "--duration",
        "600ms",
        "--warm-up",
        "100ms",
        "--out",
        str(tmp_path),
    ]
    stem = "closed_echo_1k-plain_socket"
    (tmp_path / "load").mkdir()
    earlier = tmp_path / "load" / f"{stem}-1users-0.6s.json"
    earlier.touch()
    for more in ([], ["--transport", "unix", "--payload", "10"]):
        assert run(*usual, *more) == 0
    assert earlier.read_text() == ""
    assert {path.name for path in (tmp_path / "load").glob("*.json")} == {
        f"{stem}-1users-0.6s.json",
        f"{stem}-1users-0.6s-2.json",
        f"{stem}-unix-1users-10bytes-0.6s.json",
    }


def test_unstored_result_of_load_is_printed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The disk becomes full during the run. That is no failure, nor is a condition that is not met."""
    from lab.cli.commands import load

    monkeypatch.setattr(load, "write_new", fail_with_a_full_disk)
    options = ["--users", "1", "--duration", "600ms", "--warm-up", "100ms", "--out", str(tmp_path)]
    assert run("load", *options, "--fail-if", "rate < 1") == 0
    captured = capfd.readouterr()
    assert "plain_socket" in captured.out
    assert "rate < 1" not in captured.err
    assert "lab: not stored: " in captured.err


def fail_with_a_full_disk(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("lacking", "code"),
    [
        ([], 0),
        ([""], 0),
        (["docker"], 0),
        (["process", ""], 0),
        (["docker", "process"], 2),
        (["both"], 2),
    ],
)
def test_doctor_is_exit_code_2_without_a_backend(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lacking: list[str], code: int
) -> None:
    found = [Finding("a part", False, "none", "get one", needed_for) for needed_for in lacking]
    found += [Finding("another", True, "is there", "", needed_for) for needed_for in ("both", "docker", "process")]
    monkeypatch.setattr(lab.servers.doctor, "examine", lambda: found)
    assert run("doctor", "--json") == code
    assert [item["good"] for item in json.loads(capsys.readouterr().out)].count(False) == len(lacking)


def run_demo(monkeypatch: pytest.MonkeyPatch, project: str, out: Path, result: ModelResult) -> int:
    """Run the demo with a fake result of the conformance suite, and everything else real."""
    monkeypatch.setattr(demo, "check_in_subprocess", lambda backend, models: dict.fromkeys(models, result))
    # On a busy machine, a server may give no answer for a third of a second.
    options = ["plain_socket", "--duration", "1s", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["lab", "--backend", "process", "--project", project, "demo", *options])
    return main._run()


def find_code_of_sound(printed: str) -> int:
    """Return 0; on a busy machine, the generator may have had no core for a part of a window, which the demo says."""
    return 2 if "disturbed" in printed else 0


def test_demo_of_a_sound_model_is_exit_code_0(
    monkeypatch: pytest.MonkeyPatch, process_project: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_demo(monkeypatch, process_project, tmp_path, ModelResult(9, 0))
    printed = capfd.readouterr().out
    assert code == find_code_of_sound(printed)
    assert "not measured" not in printed
    kept = demo.read(store.Run.find(None, demo.NAME, root=tmp_path))
    assert [item.model for item in kept.measurements] == ["plain_socket"]
    assert kept.missing == {}


def test_demo_of_a_failing_model_is_exit_code_1_without_a_measurement(
    monkeypatch: pytest.MonkeyPatch, process_project: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = ModelResult(8, 1, 0, ("tests/conformance/test_greet.py::test_x[plain_socket-greet-tcp]@plain_socket",))
    assert run_demo(monkeypatch, process_project, tmp_path, failing) == 1
    said = " ".join(capfd.readouterr().out.split())
    assert "not measured: plain_socket: 1 of 9 conformance tests fail: test_x[plain_socket-greet-tcp]; " in said
    assert "`lab --backend process check plain_socket` shows why" in said
    kept = demo.read(store.Run.find(None, demo.NAME, root=tmp_path))
    assert (kept.measurements, list(kept.missing)) == ([], ["plain_socket"])
    assert kept.checks == {"plain_socket": failing}


def test_demo_prints_its_table_if_results_cannot_be_stored(
    monkeypatch: pytest.MonkeyPatch, process_project: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    code = run_demo(monkeypatch, process_project, tmp_path / "file" / "below", ModelResult(9, 0))
    captured = capfd.readouterr()
    assert code == find_code_of_sound(captured.out)
    assert "requests/s" in captured.out
    assert "lab: not stored: " in captured.err
