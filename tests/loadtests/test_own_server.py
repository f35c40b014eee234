"""Servers that are not ours under load: by address, and with a protocol of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.catalogue import ROOT
from lab.errors import LabError
from lab.foreign import Foreign, parse_target
from loadtests.codec import Codec, CodecError

EXAMPLES = ROOT / "docs" / "examples"
CODEC = EXAMPLES / "length_prefixed" / "codec.py"


@pytest.fixture
def serve() -> Iterator[object]:
    """Starts one of the servers in Perl on a free port; gives the port and the process."""
    perl = shutil.which("perl")
    assert perl, "perl is needed: it is a part of every Debian and Ubuntu"
    started = []

    def serve(name: str) -> tuple[int, subprocess.Popen[str]]:
        command = [perl, str(EXAMPLES / name / "server.pl"), "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline().split()[-1]), process

    yield serve
    for process in started:
        process.terminate()
        process.communicate()


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "lab",
        "load",
        *arguments,
        "--users",
        "4",
        "--warm-up",
        "200ms",
        "--duration",
        "1s",
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_protocol_of_ones_own_is_loaded_and_every_reply_checked(serve) -> None:
    port, process = serve("length_prefixed")
    done = load("--target", f"tcp://127.0.0.1:{port}", "--codec", str(CODEC), "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["model"], found["workload"]) == ("target", "own_protocol")
    assert found["answered"] > 100
    assert found["failures"] == {}
    assert found["server_cpu_us"] > 0  # the process that listens there was found
    assert Foreign([f"tcp://127.0.0.1:{port}"]).pid("target") == process.pid


def test_a_reply_that_the_codec_refuses_is_a_failure(serve, tmp_path: Path) -> None:
    port, _ = serve("length_prefixed")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(CODEC.read_text().replace(".upper()", ".lower()"))
    done = load("--target", f"tcp://127.0.0.1:{port}", "--codec", str(wrong), "--json")
    (found,) = json.loads(done.stdout)
    assert found["answered"] == 0
    assert set(found["failures"]) == {"wrong bytes"}


def test_a_server_in_perl_is_checked_and_loaded_by_its_address(serve) -> None:
    port, _ = serve("perl_echo")
    target = f"echo=tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "lab", "check", "--target", target, "--json"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    outcomes = [item["outcome"] for item in json.loads(checked.stdout)["findings"]]
    assert len(outcomes) == 5
    assert set(outcomes) == {"passed"}
    (found,) = json.loads(load("closed_echo_1k", "--target", target, "--json").stdout)
    assert found["answered"] > 100
    assert found["failures"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "ohce=tcp://127.0.0.1:7"], "--target 'ohce=tcp://127.0.0.1:7' is not SERVICE=URL with one of"),
        (["--target", "tcp://127.0.0.1", "--codec", str(CODEC)], "has no port"),
        (["--codec", str(CODEC)], "a --codec goes with a --target"),
        (["--target", "echo=tcp://127.0.0.1:7", "--models", "plain_socket"], "either models of the catalogue or"),
        (["--target", "echo=tcp://127.0.0.1:7"], "the target speaks echo, and closed_session asks command"),
        (["--target", "tcp://127.0.0.1:7"], "needs a --codec"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    done = load(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_targets_are_addresses() -> None:
    service, address = parse_target("echo=tcp://localhost")
    assert (service, address.port) == ("echo", 7)
    assert parse_target("tcp://127.0.0.1:9001")[0] == "own"
    with pytest.raises(LabError, match="does not start with"):
        parse_target("echo=localhost:7")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def encode(number", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("encode = print", "no function reply_size"),
        ("encode = 1", "no function encode"),
    ],
)
def test_a_codec_that_cannot_be_used_says_why(text: str, said: str) -> None:
    with pytest.raises(CodecError, match=said):
        Codec.from_text(text)


def test_the_generator_names_a_codec_that_cannot_be_used(serve, tmp_path: Path) -> None:
    port, _ = serve("length_prefixed")
    broken = tmp_path / "broken.py"
    broken.write_text("encode = 1\n")
    done = load("--target", f"tcp://127.0.0.1:{port}", "--codec", str(broken))
    assert done.returncode == 2
    assert "the codec has no function encode" in done.stderr


def test_without_a_codec_there_is_none() -> None:
    assert Codec.from_environ({}) is None
    assert Codec.from_environ(os.environ | {"LAB_CODEC": CODEC.read_text()}) is not None
