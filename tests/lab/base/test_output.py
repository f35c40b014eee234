"""The lab's output: it degrades if it cannot be shown, and no exit code depends on it."""

import codecs
import io
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lab.base import output
from lab.base.paths import ROOT

# With the exit code that each has where everything can be printed. No two print by the same code.
COMMANDS = {
    "help": (["--help"], 0),
    "ls": (["ls"], 0),
    "logs": (["logs"], 0),
    "call": (["call", "plain_socket", "chargen", "3000"], 0),
    "call, an error": (["call", "plain_socket", "command", "NOPE"], 1),
    "doctor": (["doctor"], 0),
    "advise, none can": (
        ["advise", "--connections", "9", "--rate", "1000", "--service-time", "2s", "--cpu", "2s", "--cores", "1"],
        1,
    ),
    "tour": (["tour"], 0),
    "shell": (["shell", "-c", "exit 7"], 7),
    "a mistake": (["call", "nonesuch", "echo"], 2),
    "a wrong option": (["up", "--nonesuch"], 2),
}
WITHOUT_STDOUT = {"logs", "shell", "a mistake", "a wrong option"}
ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def start(project: str, arguments: list[str], script: str, environ: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", project, *arguments]
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *command],
        cwd=ROOT,
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_exit_code_does_not_depend_on_the_output(running: str, name: str) -> None:
    arguments, code = COMMANDS[name]
    started = {
        "full": start(running, arguments, '"$@" >/dev/full', C_LOCALE),
        "closed": start(running, arguments, '"$@" >&- 2>&-', {}),
        "closed pipe": start(running, arguments, '{ "$@" 3>&-; echo $? >&3; } 3>&2 2>&1 | true', {}),
    }
    ended = {name: (*process.communicate(timeout=120), process.returncode) for name, process in started.items()}
    assert ended["closed pipe"][1] == b"%d\n" % code
    assert (ended["full"][2], ended["closed"][2]) == (code, code)
    assert all(byte < 128 for byte in ended["full"][1])
    said = b"".join(stderr for _, stderr, _ in ended.values())
    assert b"Traceback" not in said
    if name not in WITHOUT_STDOUT:
        assert b"lab: stdout: No space left on device; the rest of the output follows here\n" in ended["full"][1]


def test_result_goes_to_stderr_if_stdout_fails(running: str) -> None:
    done = start(running, ["call", "plain_socket", "echo", "what came"], '"$@" >/dev/full', {})
    _, stderr = done.communicate(timeout=60)
    assert stderr == b"lab: stdout: No space left on device; the rest of the output follows here\nwhat came\n"


def test_table_of_a_load_is_never_lost(running: str) -> None:
    arguments = ["load", "plain_socket", "--users", "2", "--duration", "800ms", "--headless"]
    full = start(running, arguments, '"$@" >/dev/full', C_LOCALE)
    _, stderr = full.communicate(timeout=120)
    assert full.returncode == 0, stderr
    assert b"p99 us" in stderr


def test_table_in_ascii_has_the_same_content(running: str) -> None:
    arguments = ["advise", "--connections", "9", "--rate", "100", "--service-time", "20ms", "--cpu", "100us"]
    plain, degraded = (start(running, arguments, '"$@"', environ) for environ in ({"PYTHONUTF8": "1"}, ASCII))
    expected, got = (process.communicate(timeout=60)[0].decode() for process in (plain, degraded))
    assert "µs" in expected
    assert len(got.splitlines()) == len(expected.splitlines())
    words = re.findall(r"\w+", expected.replace("µ", "u").replace("×", "x"))  # noqa: RUF001
    assert re.findall(r"\w+", got) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("≥ 10.0k", b">= 10.0k"),
        ("µs and μs", b"us and us"),
        ("48\u202f100 \u2013", b"48 100 -"),
        ("≤ 5 ± 1 × ½", b"<= 5 +- 1 x 1/2"),  # noqa: RUF001
        ("a → b … c \u2014 d\u00a0e", b"a -> b ... c - d e"),
        # The verdicts of `lab faults`: held, degraded, unknown, failed.
        ("● ◐ ○ ▲", b"* + o !"),
        ("│─┼", b"|--"),
        ("┃║╎╏┆┇┊┋", b"||||||||"),
        ("─╿", b"--"),
        ("⠋ wait", b"* wait"),
        ("\u2800\u28ff", b"**"),
        ("\u24ff\u2580", b"\\u24ff\\u2580"),
        ("naïve", b"na\\xefve"),
        ("\udcff", b"\\udcff"),
        ("plain", b"plain"),
    ],
)
def test_character_that_the_encoding_lacks_is_replaced(text: str, shown: bytes) -> None:
    output.register()
    assert text.encode("ascii", "socketlab") == shown


def test_character_that_the_encoding_has_is_kept() -> None:
    output.register()
    assert "µ ≥ ×".encode("latin-1", "socketlab") == "µ >= ×".encode("latin-1")  # noqa: RUF001


def test_closed_pipe_drops_the_output_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    other_reader, other_writer = os.pipe()
    sink = output.Sink(writer, other_writer)
    assert sink.write(b"first") == 5
    assert sink.write(b"second") == 6
    os.close(other_writer)
    assert os.read(other_reader, 100) == b""
    os.close(other_reader)
    os.close(writer)


def test_full_disk_sends_the_rest_to_the_other_stream() -> None:
    reader, writer = os.pipe()
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = output.Sink(full.fileno(), writer)
        assert sink.write(b"first\n") == 6
        assert sink.write(b"second\n") == 7
    assert (
        os.read(reader, 1000)
        == b"lab: stdout: No space left on device; the rest of the output follows here\nfirst\nsecond\n"
    )
    os.close(reader)
    os.close(writer)


def test_output_is_dropped_if_no_stream_accepts_it() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        assert output.Sink(full.fileno(), full.fileno()).write(b"first") == 5
        assert output.Sink(full.fileno(), None).write(b"first") == 5
        with Path("/dev/full").open("wb", buffering=0) as other:
            assert output.Sink(full.fileno(), other.fileno()).write(b"first") == 5


def test_non_blocking_pipe_gets_all_output() -> None:
    """Another process can make a pipe non-blocking; a `print` would then fail half-way."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = bytes(range(256)) * 2000
    code = "import os, sys; sys.exit(len(b''.join(iter(lambda: os.read(0, 65536), b''))) != int(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", code, str(len(data))], stdin=reader) as child:
        os.close(reader)
        with io.BufferedWriter(output.Sink(writer, None)) as stream:
            stream.write(data)
        os.close(writer)
        assert child.wait(30) == 0


def test_terminal_is_detected() -> None:
    main, side = pty.openpty()
    assert output.Sink(side, None).isatty()
    assert output.Sink(side, None).fileno() == side
    os.close(main)
    os.close(side)


@pytest.mark.parametrize(
    ("known", "environ", "encoding", "errors"),
    [
        (("ascii", "strict"), None, "ascii", "socketlab"),
        (("ascii", "strict"), "ascii", "ascii", "socketlab"),
        # Somebody's choice.
        (("ascii", "ignore"), "ascii:ignore", "ascii", "ignore"),
        # It was closed before the start.
        (None, "ascii:ignore", "utf-8", "socketlab"),
        (None, None, "utf-8", "socketlab"),
    ],
)
def test_encoding_is_pythons_and_the_error_handler_the_labs_by_default(
    known: tuple[str, str] | None,
    environ: str | None,
    encoding: str,
    errors: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    output.register()
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    if environ:
        monkeypatch.setenv("PYTHONIOENCODING", environ)
    stream = SimpleNamespace(encoding=known[0], errors=known[1]) if known else None
    with (tmp_path / "out").open("wb") as file:
        found = output._open(file.fileno(), stream, instead=None)  # type: ignore[arg-type]
        assert (found.encoding, found.errors) == (encoding, errors)


@pytest.mark.parametrize(("number", "is_terminal", "by_line"), [(1, True, True), (1, False, False), (2, False, True)])
def test_terminal_and_stderr_are_written_line_by_line(
    number: int, is_terminal: bool, by_line: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.register()
    monkeypatch.setattr(os, "isatty", lambda _: is_terminal)
    assert output._open(number, None, instead=None).line_buffering is by_line


def test_closed_descriptors_are_filled_before_streams_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    codecs.register_error("socketlab", codecs.strict_errors)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    opened = iter([1, 2, 3])
    closed: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda path, flags: next(opened))
        patched.setattr(os, "close", closed.append)
        output.install()
    assert closed == [3]
    assert codecs.lookup_error("socketlab") is output._replace
    files = [cast(io.BufferedWriter, stream.buffer).raw for stream in (sys.stdout, sys.stderr)]
    sinks = [file for file in files if isinstance(file, output.Sink)]
    assert [(sink._number, sink._instead) for sink in sinks] == [(1, 2), (2, None)]


def test_full_pipe_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, waited = iter([BlockingIOError(), None]), []

    def write(number: int, data: bytes) -> int:
        if (error := next(answers)) is not None:
            raise error
        return len(data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        patched.setattr(select, "select", lambda *lists: waited.append(lists))
        assert output.Sink(7, None).write(b"abc") == 3
    assert waited == [([], [7], [])]


def test_error_handler_does_not_handle_decoding() -> None:
    output.register()
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", "socketlab")
