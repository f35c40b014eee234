"""The file of a codec: how it is loaded, what is wrong with one, and how its own errors are reported."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.base.paths import ROOT
from loadtests.sockets.codec import Codec, CodecError
from loadtests.sockets.exchange import failure_kind
from loadtests.sockets.failures import ExchangeError

CODEC = ROOT / "docs" / "examples" / "length_prefixed" / "codec.py"
PLAIN = "encode = lambda number: b'x'; reply_size = lambda data, request: len(data)"


@pytest.fixture
def make_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Codec]]:
    """Load a codec from a text, and remove its module afterwards."""
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def make(text: str) -> Codec:
        path = tmp_path / "wrong.py"
        path.write_text(text)
        return Codec.load(path)

    yield make
    for name in ("wrong", "beside_it", "later"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def encode(number", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit('no more')", "SystemExit: no more"),
        ("encode = print", "no function reply_size"),
        ("encode = 1", "no function encode"),
        ("encode = reply_size = lambda *_: None", r"encode\(0\) returned None"),
        ("encode = reply_size = lambda *_: b''", r"encode\(0\) returned b''"),
        ("encode = reply_size = lambda number: {}[number]", r"wrong.py:1: KeyError: 0"),
        (f"{PLAIN}; greeting_size = 4", "greeting_size is 4, and no function"),
        (f"{PLAIN}; UNTIL_CLOSE = 1", "UNTIL_CLOSE is 1: True or False"),
        (f"{PLAIN}; REQUESTS_PER_CONNECTION = 0", "REQUESTS_PER_CONNECTION is 0: a whole number, 1 or more"),
        (f"{PLAIN}; REQUESTS_PER_CONNECTION = True", "REQUESTS_PER_CONNECTION is True"),
        (f"{PLAIN}; UNTIL_CLOSE = True; REQUESTS_PER_CONNECTION = 2", "leaves one request to a connection"),
    ],
)
def test_invalid_codec_says_why(text: str, said: str, make_codec: Callable[[str], Codec]) -> None:
    with pytest.raises(CodecError, match=said):
        make_codec(text)


def test_codec_that_is_not_a_python_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "codec.txt").write_text(PLAIN)
    with pytest.raises(CodecError, match=r"codec.txt is no Python file: its name ends in .py"):
        Codec.load(tmp_path / "codec.txt")
    with pytest.raises(CodecError, match="FileNotFoundError"):
        Codec.load(tmp_path / "codec.py")


def test_codec_is_an_ordinary_module(make_codec: Callable[[str], Codec], tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("WORD = b'hello'\n")
    (tmp_path / "data").write_bytes(b"!")
    (tmp_path / "later.py").write_text("WORD = b'bye'\n")
    codec = make_codec(
        """
from __future__ import annotations
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from typing import ClassVar

from beside_it import WORD

@dataclass
class Message:
    sizes: ClassVar[dict[int, int]] = {}
    words: list[bytes] = field(default_factory=lambda: [WORD])

def encode(number: int) -> bytes:
    if number:
        import later
        return later.WORD
    return Message().words[0] + Path(__file__).with_name("data").read_bytes()

def reply_size(data: bytes, request: bytes) -> int | None:
    return len(data)
"""
        + f"TABLE = {b'x' * 500_000!r}\n"  # far more than an argument or a variable can hold, execve(2)
    )
    assert codec.request(0) == b"hello!"
    assert codec.request(1) == b"bye"


def test_codec_does_not_replace_a_module_of_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "json.py"
    path.write_text(PLAIN)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "codec", raising=False)
    before = sys.modules["json"]
    assert Codec.load(path).request(0) == b"x"
    assert sys.modules["json"] is before


def test_codec_that_fails_says_how_and_where(make_codec: Callable[[str], Codec]) -> None:
    codec = make_codec(
        """
def encode(number):
    return [b"x", "y", b""][number]

def reply_size(data, request):
    if data == b"!":
        raise ValueError("no\\nsuch reply")
    return find(data)

def find(data):
    return {b"0": 0, b"1": 1, b"-": -1, b"2": 2, b"1.0": 1.0, b"None": None}[data]
"""
    )

    def fail(ask: Callable[[], object]) -> str:
        with pytest.raises(ExchangeError) as caught:
            ask()
        return str(caught.value)

    def check(data: bytes) -> int | None:
        return codec.check(data, b"x")

    assert (check(b"0"), check(b"1"), check(b"None")) == (0, 1, None)
    assert fail(lambda: check(b"!")) == "wrong bytes (no such reply)"
    assert failure_kind("wrong bytes (no (such) reply)") == failure_kind("wrong bytes") == "wrong bytes"
    assert fail(lambda: check(b"?")) == "the codec raised an error (wrong.py:11: KeyError: b'?')"
    assert fail(lambda: check(b"-")) == "the codec raised an error (reply_size returned -1 of 1 bytes)"
    assert fail(lambda: check(b"2")) == "the codec raised an error (reply_size returned 2 of 1 bytes)"
    assert fail(lambda: check(b"1.0")) == "the codec raised an error (reply_size returned 1.0 of 3 bytes)"
    assert "encode(1) returned 'y', which is no request" in fail(lambda: codec.request(1))
    assert "encode(2) returned b''" in fail(lambda: codec.request(2))
    assert "wrong.py:3: IndexError" in fail(lambda: codec.request(3))


def test_codec_is_none_by_default() -> None:
    assert Codec.from_environ({}) is None
    assert Codec.from_environ({"LAB_CODEC": ""}) is None
    assert Codec.from_environ({"LAB_CODEC": str(CODEC)}) is not None


@pytest.mark.parametrize(
    ("more", "per_connection", "until_close"),
    [
        ("", None, False),
        ("REQUESTS_PER_CONNECTION = 1", 1, False),
        ("REQUESTS_PER_CONNECTION = 3", 3, False),
        ("UNTIL_CLOSE = True", 1, True),
        ("UNTIL_CLOSE = True; REQUESTS_PER_CONNECTION = 1", 1, True),
    ],
)
def test_constants_of_a_codec_are_read(
    more: str, per_connection: int | None, until_close: bool, make_codec: Callable[[str], Codec]
) -> None:
    codec = make_codec(f"{PLAIN}\n{more}")
    assert (codec.per_connection, codec.until_close, codec.greeting_size) == (per_connection, until_close, None)


def test_codec_keeps_its_connection_unless_it_says_otherwise() -> None:
    codec = Codec(encode=lambda number: b"x", reply_size=lambda data, request: 1)
    assert (codec.per_connection, codec.until_close) == (None, False)


def test_request_may_be_empty_if_the_server_closes(make_codec: Callable[[str], Codec]) -> None:
    assert make_codec("encode = reply_size = lambda *_: b''; UNTIL_CLOSE = True").request(0) == b""


def test_greeting_has_a_size_of_its_own(make_codec: Callable[[str], Codec]) -> None:
    codec = make_codec(f"{PLAIN}\ngreeting_size = {{b'ready': 5, b'rea': None, b'x': 2}}.get")
    assert (codec.check_greeting(b"ready"), codec.check_greeting(b"rea")) == (5, None)
    with pytest.raises(ExchangeError, match="greeting_size returned 2 of 1 bytes"):
        codec.check_greeting(b"x")


def test_folder_of_a_codec_comes_first_only_while_it_is_loaded(
    tmp_path: Path, make_codec: Callable[[str], Codec]
) -> None:
    before = sys.path.copy()
    with pytest.raises(CodecError, match="SystemExit"):
        make_codec("raise SystemExit")
    assert sys.path == [*before, str(tmp_path)]
    sys.path[:] = before
    make_codec(f"{PLAIN}\nimport sys\nassert sys.path[0] == {str(tmp_path)!r}")
    assert sys.path == [*before, str(tmp_path)]
