"""The interactive servers: telnet, the chat room of asynchat, and XML-RPC."""

import gzip
import http.client
import socket
import xmlrpc.client
import zlib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from xmlrpc.client import Binary, Fault, MultiCall, ServerProxy

import pytest

from tests.gallery.conftest import PATIENCE, Talk

TELNET, CHAT, XMLRPC = "gallery_telnet", "gallery_asynchat", "gallery_xmlrpc"
IAC, DONT, DO, WONT, WILL = 255, 254, 253, 252, 251


class Terminal:
    """A telnet client that declines every option, RFC 854."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.offered: set[int] = set()
        self._shown = b""
        self._raw = b""

    def read_until(self, end: str) -> str:
        """Return what the terminal has shown so far."""
        while end.encode() not in self._shown:
            data = self.link.recv(4096)
            assert data, f"the connection ended after {self._shown!r}"
            self._raw += data
            self._take()
        text, _, self._shown = self._shown.partition(end.encode())
        return text.decode()

    def say(self, line: str) -> None:
        self.link.sendall(line.encode() + b"\r\n")

    def _take(self) -> None:
        while self._raw:
            if self._raw[0] != IAC:
                text, mark, rest = self._raw.partition(bytes([IAC]))
                self._shown, self._raw = self._shown + text, mark + rest
            elif len(self._raw) < 3:
                return
            else:
                command, option = self._raw[1], self._raw[2]
                self._raw = self._raw[3:]
                self.offered.add(option)
                if command in (DO, WILL):
                    self.link.sendall(bytes([IAC, WONT if command == DO else DONT, option]))


class TestTelnet:
    @pytest.fixture
    def terminal(self, talk: Callable[[str, int], Talk]) -> Terminal:
        return Terminal(talk(TELNET, 23).link)

    def test_menu(self, terminal: Terminal) -> None:
        assert "Welcome to the gallery." in terminal.read_until("choice> ")
        assert terminal.offered, "it has negotiated nothing"
        terminal.say("time")
        assert str(datetime.now(UTC).year) in terminal.read_until("choice> ")
        terminal.say("echo hello, world, 100 %d")  # and no format
        assert "hello, world, 100 %d" in terminal.read_until("choice> ").splitlines()
        terminal.say("nonsense")
        assert "no such choice: nonsense" in terminal.read_until("choice> ")
        terminal.say("quit")
        terminal.read_until("Good-bye.")
        while terminal.link.recv(4096):
            pass

    @pytest.mark.parametrize(
        "line", ["echo $(id)", "echo `id`", "echo x; id", "echo $PATH", "!id", "$(id)", "time; id", "echo %s%n", "-n"]
    )
    def test_typed_text_is_never_executed(self, terminal: Terminal, line: str) -> None:
        terminal.read_until("choice> ")
        terminal.say(line)
        answer = terminal.read_until("choice> ")
        assert "uid=" not in answer
        assert "/usr/bin" not in answer

    @pytest.mark.parametrize("key", [b"\x03", b"\x1c", b"\x1a"], ids=["interrupt", "quit", "suspend"])
    def test_control_keys_do_not_open_a_shell(self, terminal: Terminal, key: bytes) -> None:
        terminal.read_until("choice> ")
        terminal.link.sendall(key + b"\r\n")
        terminal.link.settimeout(2)
        said = b""
        try:
            while data := terminal.link.recv(4096):
                said += data
        except TimeoutError:
            pass
        assert not {b"$ ", b"# "} & {said[-2:]}


class TestAsynchat:
    def enter(self, talk: Callable[[str, int], Talk]) -> tuple[Talk, str]:
        member = talk(CHAT, 7000)
        words = member.hear().split()
        assert words[:2] == ["You", "are"]
        return member, words[2].rstrip(".")

    def test_message_goes_to_all_clients(self, talk: Callable[[str, int], Talk], name: str) -> None:
        first, number = self.enter(talk)
        second, _ = self.enter(talk)
        first.say(name)
        said = f"{number}: {name}"
        assert [line for line in (first.hear(), second.hear()) if line == said] == [said, said]
        second.say("/quit")
        assert second.hear() == "Good-bye."
        assert second.hear() == ""

    def test_line_ends_with_one_end_of_line_whatever_it_came_with(self, talk: Callable[[str, int], Talk]) -> None:
        member, number = self.enter(talk)
        for end in (b"\n", b"\r\n"):
            member.link.sendall(b"hello" + end)
            heard = b""
            while not heard.endswith(b"\n"):
                heard += member.link.recv(100)
            assert heard == f"{number}: hello\r\n".encode()

    def test_client_that_has_left_says_nothing_more(self, talk: Callable[[str, int], Talk]) -> None:
        first, _ = self.enter(talk)
        second, number = self.enter(talk)
        first.link.sendall(b"/quit\r\nI am still here\r\n")
        assert first.hear() == "Good-bye."
        assert second.ask("alone") == f"{number}: alone"

    def test_data_of_a_given_length_is_not_a_line(self, talk: Callable[[str, int], Talk]) -> None:
        """Each time anew."""
        member, _ = self.enter(talk)
        for data in (b"\r\n/quit\r\n\x00" * 1000, b"\n"):
            member.say(f"/count {len(data)}")
            member.link.sendall(data)
            assert member.hear() == f"{len(data)} bytes, CRC-32 {zlib.crc32(data):08x}"
        assert member.ask("/who").endswith(" here")

    def test_data_is_summed_up_over_its_pieces(self, talk: Callable[[str, int], Talk]) -> None:
        """The largest number of bytes that is allowed, and no read gives so many."""
        member, _ = self.enter(talk)
        data = bytes(range(256)) * 4096
        member.say(f"/count {len(data)}")
        member.link.sendall(data)
        assert member.hear() == f"1048576 bytes, CRC-32 {zlib.crc32(data):08x}"

    def test_longest_line_is_a_line(self, talk: Callable[[str, int], Talk]) -> None:
        member, number = self.enter(talk)
        member.link.sendall(b"x" * 4096 + b"\n")
        assert member.hear() == f"{number}: {'x' * 4096}"

    @pytest.mark.parametrize(
        "line", ["/count", "/count x", "/count 0", "/count -1", "/count 1048577", "/count 1 2", "/count ²"]
    )
    def test_invalid_number_is_refused(self, talk: Callable[[str, int], Talk], line: str) -> None:
        member, _ = self.enter(talk)
        assert member.ask(line).startswith("! /count takes")

    def test_endless_line_is_refused(self, talk: Callable[[str, int], Talk]) -> None:
        member, _ = self.enter(talk)
        member.link.sendall(b"x" * 5000)
        assert member.hear() == "! a line has at most 4096 bytes"
        assert member.hear() == ""

    def test_client_that_does_not_read_is_disconnected(self, talk: Callable[[str, int], Talk]) -> None:
        """The server buffers no more than its documented limit for them."""
        deaf, number = self.enter(talk)
        speaker, mine = self.enter(talk)
        line = "x" * 4000
        # What the kernel keeps for the two, and what the server does: far less than 10,000 lines.
        for _ in range(10_000):
            assert speaker.ask(line).startswith(f"{mine}: x")
            deaf.link.settimeout(0)
            try:
                if deaf.link.recv(1, socket.MSG_PEEK) == b"":
                    break
            except BlockingIOError:
                pass
            if speaker.ask("/who") == "1 here":
                return
        pytest.fail(f"{number} is still here")


def entities(depth: int) -> bytes:
    """The "billion laughs" bomb: ten to the power of `depth` words."""
    lines = [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, depth + 1)]
    declared = "".join(['<!ENTITY e0 "ha">', *lines])
    return f"<?xml version='1.0'?><!DOCTYPE m [{declared}]>{call(f'&e{depth};')}".encode()


def call(text: str) -> str:
    return f"<methodCall><methodName>{text}</methodName><params></params></methodCall>"


class TestXmlRpc:
    @pytest.fixture
    def server(self):
        with ServerProxy(f"http://{XMLRPC}:8000/RPC2", use_builtin_types=False) as proxy:
            yield proxy

    def test_procedures(self, server: ServerProxy) -> None:
        assert server.add(2, 3) == 5
        assert server.divide(7, 2) == 3.5
        turned = server.reverse(Binary(b"\x00abc"))
        assert isinstance(turned, Binary)
        assert turned.data == b"cba\x00"
        now = datetime.strptime(str(server.now()), "%Y%m%dT%H:%M:%S").replace(tzinfo=UTC)
        assert abs((datetime.now(UTC) - now).total_seconds()) < 60

    def test_introspection_and_multicall(self, server: ServerProxy) -> None:
        methods, text = server.system.listMethods(), server.system.methodHelp("add")
        assert isinstance(methods, list)
        assert {"add", "divide", "now", "reverse", "system.multicall"} <= set(methods)
        assert isinstance(text, str)
        assert "sum" in text
        together = MultiCall(server)
        together.add(1, 2)
        together.divide(1, 0)
        results = together()
        assert results[0] == 3
        with pytest.raises(Fault):
            results[1]

    def test_faults(self, server: ServerProxy) -> None:
        with pytest.raises(Fault) as caught:
            server.divide(1, 0)
        assert (caught.value.faultCode, caught.value.faultString) == (100, "division by zero")
        with pytest.raises(Fault, match="not supported"):
            server.nonsense()
        with pytest.raises(Fault, match="not supported"):
            getattr(server, "add.__globals__")()
        with pytest.raises(Fault, match="TypeError"):
            server.add(1)

    @pytest.mark.parametrize(
        "body",
        [
            entities(1),
            entities(9),
            f"<?xml version='1.0'?><!DOCTYPE m [<!ENTITY e SYSTEM 'file:///srv/accounts'>]>{call('&e;')}".encode(),
            f"<?xml version='1.0'?><!DOCTYPE m [<!ENTITY % e SYSTEM 'http://gallery_web/'> %e;]>{call('add')}".encode(),
        ],
        ids=["an entity", "a billion laughs", "a file", "an address"],
    )
    def test_entities_are_refused(self, server: ServerProxy, body: bytes) -> None:
        with closing(http.client.HTTPConnection(XMLRPC, 8000, timeout=PATIENCE)) as client:
            client.request("POST", "/RPC2", body)
            with pytest.raises(Fault, match="Forbidden"):
                xmlrpc.client.loads(client.getresponse().read())
        assert server.add(1, 1) == 2

    def test_compressed_bomb_is_refused(self, server: ServerProxy) -> None:
        """40 MB of blanks in 40 KB."""
        body = gzip.compress(b" " * 40_000_000)
        with closing(http.client.HTTPConnection(XMLRPC, 8000, timeout=PATIENCE)) as client:
            client.request("POST", "/RPC2", body, {"Content-Encoding": "gzip"})
            assert client.getresponse().status == 400
        assert server.add(1, 1) == 2

    @pytest.mark.parametrize(
        ("length", "status"),
        [
            (b"1048577", 413),
            (b"9" * 5000, 413),
            (b"-1", 411),
            (b"x", 411),
            (b"\xb2", 411),
            (None, 411),
            (b"5\r\nTransfer-Encoding: chunked", 411),
            (b"5\r\nContent-Length: 6", 411),
        ],
        ids=["one more", "5000 digits", "negative", "a word", "a superscript", "none", "chunks too", "two"],
    )
    def test_request_with_an_invalid_length_is_refused(
        self, talk: Callable[[str, int], Talk], length: bytes | None, status: int
    ) -> None:
        client = talk(XMLRPC, 8000)
        header = b"Content-Length: %b\r\n" % length if length else b""
        client.say(b"POST /RPC2 HTTP/1.1\r\nHost: %b\r\n%b" % (XMLRPC.encode(), header))
        assert client.hear().startswith(f"HTTP/1.1 {status} ")
        assert client.hear_all()  # to the end: the unread body would be taken for the next request

    def test_largest_request_is_answered_and_its_connection_kept(self, talk: Callable[[str, int], Talk]) -> None:
        body = call("system.listMethods").encode()
        client = talk(XMLRPC, 8000)
        for size in (1_048_576, len(body)):
            client.say(b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % size)
            client.link.sendall(body + b" " * (size - len(body)))
            assert client.hear() == "HTTP/1.1 200 OK"
            assert "<value><string>system.listMethods</string></value>" in client.hear_until("</methodResponse>")

    @pytest.mark.parametrize("body", [b"", b"<", b"\x00" * 100, b"<methodCall/>", b"<methodResponse/>"])
    def test_malformed_call_is_refused(self, server: ServerProxy, body: bytes) -> None:
        with closing(http.client.HTTPConnection(XMLRPC, 8000, timeout=PATIENCE)) as client:
            client.request("POST", "/RPC2", body)
            with pytest.raises(Fault):
                xmlrpc.client.loads(client.getresponse().read())
        assert server.add(1, 1) == 2

    @pytest.mark.parametrize("path", ["/", "/elsewhere"])
    def test_other_paths_are_404(self, path: str) -> None:
        with closing(http.client.HTTPConnection(XMLRPC, 8000, timeout=PATIENCE)) as client:
            client.request("POST", path, call("add"))
            assert client.getresponse().status == 404

    def test_slow_client_does_not_block_others(self, server: ServerProxy, talk: Callable[[str, int], Talk]) -> None:
        slow = talk(XMLRPC, 8000)
        slow.say("POST /RPC2 HTTP/1.1\r\nContent-Length: 100\r\n")
        assert server.add(1, 1) == 2
