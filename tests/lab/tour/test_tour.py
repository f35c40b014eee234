"""The tour: its list, its recorder, masked secrets, its output, and the servers that it starts."""

import base64
import errno
import hashlib
import json
import re
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from subprocess import CompletedProcess

import docker
import pytest

from lab.base.messages import build
from lab.report.tour import SHOWN, WIDE, make_list, mark_lines, show, show_failure
from lab.servers.ca import create_ca, issue
from lab.servers.docker.cleanup import purge
from lab.tour import registry
from lab.tour.accounts import ANN, BOB, WRONG_PASSWORD
from lab.tour.dialogue import KEPT, MASK, Message, _spellings, mask, show_text
from lab.tour.faulty import breaking_off, silent
from lab.tour.normalise import normalise, normalise_text
from lab.tour.recorder import Recorder
from lab.tour.registry import RegistryError, read_exhibit
from lab.tour.runner import ExhibitRun, Failure
from tests.lab.conftest import copy_catalogue

Lab = Callable[..., "CompletedProcess[str]"]
Find = Callable[[str], list[str]]

# The names of the classic table in the tutorials, and the topics before it.
CLASSIC = [
    "socket",
    "SocketServer",
    "twisted.internet",
    "urllib",
    "urllib2",
    "asynchat",
    "asyncore",
    "cgi",
    "Cookie",
    "cookielib",
    "email",
    "ftplib",
    "gopherlib",
    "httplib",
    "imaplib",
    "mailbox",
    "mailcap",
    "mhlib",
    "nntplib",
    "poplib",
    "robotparser",
    "SimpleXMLRPCServer",
    "smtpd",
    "smtplib",
    "telnetlib",
    "urlparse",
    "xmlrpclib",
]

DOCSTRING = '''"""What it is for.

Python 2: old, older
Python 3: -
Gone since: 3.13
Use instead: something
  newer
Servers: gallery_web
"""

code = 1
'''


class TestRegistry:
    def test_registry_has_each_module_of_the_classic_table_and_each_file(self) -> None:
        exhibits = registry.load()
        assert [name for exhibit in exhibits for name in exhibit.python2] == CLASSIC
        files = {path.name for path in registry.DIRECTORY.glob("*.py")} - {"__init__.py"}
        assert files == {Path(exhibit.file).name for exhibit in exhibits}

    def test_gone_modules_are_those_that_python_removed(self) -> None:
        """Checked against this version of Python; versions before 3.13 still have some of them."""
        gone = {exhibit.module: exhibit.gone_since for exhibit in registry.load() if exhibit.gone_since}
        assert gone == {
            "asynchat": "3.12",
            "asyncore": "3.12",
            "cgi": "3.13",
            "gopherlib": "2.6",
            "mailcap": "3.13",
            "mhlib": "3.0",
            "nntplib": "3.13",
            "smtpd": "3.12",
            "telnetlib": "3.13",
        }
        for module, version in gone.items():
            assert (module in sys.stdlib_module_names) == (sys.version_info < tuple(map(int, version.split("."))))

    @pytest.mark.parametrize(
        ("name", "module"),
        [
            ("ftplib", "ftplib"),
            ("SocketServer", "socketserver"),
            ("http.cookies", "cookie"),
            ("xmlrpc.server", "simplexmlrpcserver"),
            ("urllib.request", "urllib"),
            ("urllib.parse", "urllib"),
            ("mailbox", "mailbox"),
            ("MAILBOX.MH", "mhlib"),
        ],
    )
    def test_module_is_found_by_any_of_its_names(self, name: str, module: str) -> None:
        assert [exhibit.module for exhibit in registry.find([name])] == [module]

    def test_modules_are_returned_once_and_in_the_order_of_the_tour(self) -> None:
        assert [each.module for each in registry.find(["smtplib", "Cookie", "socket", "cookie"])] == [
            "socket",
            "cookie",
            "smtplib",
        ]

    def test_unknown_module_is_an_error_with_the_known_names(self) -> None:
        with pytest.raises(RegistryError, match=r"^unknown module 'finger'; known: socket, .*, xmlrpclib$"):
            registry.find(["ftplib", "finger"])

    def test_facts_are_read_from_the_docstring_and_the_rest_is_code(self) -> None:
        exhibit = read_exhibit("old", DOCSTRING)
        assert exhibit.purpose == "What it is for."
        assert (exhibit.python2, exhibit.python3, exhibit.gone_since) == (("old", "older"), (), "3.13")
        assert (exhibit.instead, exhibit.servers) == ("something newer", ("gallery_web",))
        assert exhibit.code == "code = 1\n"
        # The recordings have it, so it stays as it is.
        assert exhibit.digest == hashlib.sha256(b"code = 1\n").hexdigest()[:16]
        other = read_exhibit("old", DOCSTRING.replace("something", "nothing"))
        assert other.digest == exhibit.digest != read_exhibit("old", DOCSTRING.replace("= 1", "= 2")).digest

    def test_json_has_the_facts_and_the_file_without_its_text(self) -> None:
        assert read_exhibit("old", DOCSTRING).as_json() == {
            "module": "old",
            "purpose": "What it is for.",
            "python2": ("old", "older"),
            "python3": (),
            "gone_since": "3.13",
            "instead": "something newer",
            "servers": ("gallery_web",),
            "file": "lab/tour/exhibits/old_exhibit.py",
        }

    def test_missing_file_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(registry, "DIRECTORY", tmp_path)
        with pytest.raises(RegistryError) as error:
            registry.load()
        assert str(error.value) == f"{tmp_path}/socket_exhibit.py: no such file, but the tour lists it"

    def test_missing_fact_is_named(self) -> None:
        with pytest.raises(RegistryError, match=r"old_exhibit\.py: its docstring lacks: Gone since$"):
            read_exhibit("old", DOCSTRING.replace("Gone since: 3.13\n", ""))
        with pytest.raises(RegistryError, match=r"its docstring lacks: Python 2, .*, Servers$"):
            read_exhibit("old", "code = 1\n")


class TestSecrets:
    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            ("PASS whatever it is", f"PASS {MASK}"),
            ("authinfo pass x", f"authinfo pass {MASK}"),
            ("ABCD1 LOGIN ann {3}", f"ABCD1 LOGIN ann {MASK}"),
            ("AUTH PLAIN AGFubgBhbm4=", f"AUTH PLAIN {MASK}"),
            ("Host: a\nAuthorization: Basic YTpi\nAccept: b", f"Host: a\nAuthorization: Basic {MASK}\nAccept: b"),
            ("Proxy-Authorization: Basic YTpi", f"Proxy-Authorization: Basic {MASK}"),
            ("ftp://ann:anns-secret@host/", f"ftp://ann:{MASK}@host/"),
            ("PASSIVE mode", "PASSIVE mode"),
            ("Authorization: Digest username=ann", "Authorization: Digest username=ann"),
        ],
    )
    def test_password_of_a_command_is_masked(self, said: str, shown: str) -> None:
        assert mask(said) == shown

    def test_spellings_are_those_of_each_command(self) -> None:
        plain = (ANN.password, BOB.password, WRONG_PASSWORD)
        pairs = [
            f"{prefix}{user}{separator}{password}"
            for password in plain
            for user in ("ann", "bob")
            for prefix, separator in (("\0", "\0"), ("", ":"))
        ]
        encoded = [base64.b64encode(text.encode()).decode() for text in (*plain, *pairs)]
        assert sorted(_spellings()) == sorted([*plain, *encoded])

    @pytest.mark.parametrize("password", [ANN.password, WRONG_PASSWORD])
    def test_password_of_the_gallery_is_masked_in_every_spelling(self, password: str) -> None:
        for text in (password, f"\0{ANN.user}\0{password}", f"{ANN.user}:{password}"):
            encoded = base64.b64encode(text.encode()).decode()
            assert mask(f"> {encoded} <") == f"> {MASK} <"
        assert mask(f"x{password}x") == f"x{MASK}x"


def test_bytes_are_decoded_for_display() -> None:
    assert show_text("grün\r\n".encode()) == "grün\n"
    assert show_text("\x85\u200b\u0100".encode()) == "\\x85\\u200b\u0100"
    assert show_text(b"\xff\xfb\x01 choice> \x00\t\x1b[1m") == "\\xff\\xfb\\x01 choice> \\x00\t\\x1b[1m"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    owners = (socket, socket.socket, ssl.SSLContext, ssl.SSLSocket)
    before = {(owner, name): vars(owner).get(name) for owner in owners for name in dir(owner)}
    with recorder.recording():
        yield recorder
    # All replaced methods are restored.
    assert before == {(owner, name): vars(owner).get(name) for owner, name in before}


class Server:
    """Answer each line in upper case; over TLS if there is a context.

    Args:
        before: number of bytes that are read, and not answered, before TLS begins.
    """

    def __init__(self, context: ssl.SSLContext | None = None, before: int = 0) -> None:
        self._context, self._before = context, before
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        stream, _ = self._listener.accept()
        if self._context:
            stream.recv(self._before, socket.MSG_WAITALL)
            stream = self._context.wrap_socket(stream, server_side=True)
        with stream, stream.makefile("rb") as lines:
            for line in lines:
                stream.sendall(line.upper())


def tell(messages: list[Message]) -> list[tuple[int, str, str]]:
    return [(each.connection, each.side, each.text) for each in messages]


class TestRecorder:
    def test_recorder_records_a_client_and_not_its_server_in_the_same_process(self, recorder: Recorder) -> None:
        with Server() as server, socket.create_connection(server.address) as link:
            link.sendall(b"hel")
            link.send(memoryview(b"lo\n"))
            assert link.recv(100) == b"HELLO\n"
            link.sendmsg(iter([b"by", b"e\n"]))
            data = bytearray(100)
            assert link.recv_into(data) == 4
        assert tell(recorder.messages()) == [
            (1, "client", "hello\n"),
            (1, "server", "HELLO\n"),
            (1, "client", "bye\n"),
            (1, "server", "BYE\n"),
        ]
        assert {each.peer for each in recorder.messages()} == {f"127.0.0.1:{server.address[1]}"}

    def test_peer_has_the_name_that_the_client_used(self, recorder: Recorder) -> None:
        with Server() as server, socket.create_connection(("localhost", server.address[1])) as link:
            link.sendall(b"x\n")
            link.recv(10)
        assert {each.peer for each in recorder.messages()} == {f"localhost:{server.address[1]}"}

    def test_address_keeps_the_first_name_that_was_used_for_it(self, recorder: Recorder) -> None:
        """FTP's data connection goes to the address that the server has sent."""
        for name, peer in (("localhost", "localhost"), ("127.0.0.1", "localhost")):
            with Server() as server, socket.create_connection((name, server.address[1])) as link:
                link.sendall(b"x\n")
                link.recv(10)
            assert recorder.messages()[-1].peer == f"{peer}:{server.address[1]}"

    def test_end_of_a_connection_is_no_message_of_the_server(self, recorder: Recorder) -> None:
        with Server() as server, socket.create_connection(server.address) as link:
            link.shutdown(socket.SHUT_WR)
            assert link.recv(10) == b""
        assert recorder.messages() == []

    def test_connection_to_a_socket_file_is_not_recorded(self, recorder: Recorder, tmp_path: Path) -> None:
        """As those of the libraries that an exhibit uses, to a daemon of its own machine."""
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as link:
            server.bind(str(tmp_path / "s"))
            server.listen()
            link.connect(str(tmp_path / "s"))
            link.sendall(b"x\n")
        assert recorder.messages() == []

    def test_recorder_records_ipv6(self, recorder: Recorder) -> None:
        with Server() as server, socket.socket(socket.AF_INET6) as link:
            link.connect(("::ffff:127.0.0.1", server.address[1]))
            link.sendall(b"x\n")
            link.recv(10)
        assert tell(recorder.messages()) == [(1, "client", "x\n"), (1, "server", "X\n")]

    def test_socket_that_connects_in_several_calls_is_one_connection(self, recorder: Recorder) -> None:
        """A loop asks `connect_ex` until it says that the socket is connected."""
        for number in (1, 2):
            with Server() as server, socket.socket() as link:
                link.settimeout(0)
                while link.connect_ex(server.address) not in (0, errno.EISCONN):
                    select.select([], [link], [])
                link.settimeout(10)
                link.sendall(b"x\n")
                link.recv(10)
            assert tell(recorder.messages())[-1] == (number, "server", "X\n")

    @pytest.mark.parametrize("method", ["send", "sendmsg"])
    def test_only_what_was_sent_is_recorded(self, recorder: Recorder, method: str) -> None:
        data = b"x" * (1 << 24)  # more than any buffer has
        with silent() as port, socket.create_connection(("127.0.0.1", port)) as link:
            link.settimeout(0)
            sent = link.send(data) if method == "send" else link.sendmsg([data[:10], data])
        (message,) = recorder.messages()
        assert 10 < sent < len(data)
        assert len(message.text) + message.left_out == sent

    def test_pieces_that_can_be_read_only_once_are_sent_with_all_else(self, recorder: Recorder) -> None:
        """As asyncio sends them."""
        with Server() as server, socket.create_connection(server.address) as link:
            assert link.sendmsg(iter([b"x", b"\n"]), [], socket.MSG_NOSIGNAL) == 2
            assert link.recv(10) == b"X\n"
        assert tell(recorder.messages()) == [(1, "client", "x\n"), (1, "server", "X\n")]

    def test_recorder_goes_on_after_an_error(self, recorder: Recorder) -> None:
        with Server() as server, socket.create_connection(server.address) as link:
            link.settimeout(0)
            with pytest.raises(BlockingIOError):
                link.recv(10)
            link.settimeout(10)
            link.sendall(b"x\n")
            link.recv(10)
        assert tell(recorder.messages()) == [(1, "client", "x\n"), (1, "server", "X\n")]

    def test_recorder_records_files_of_sockets_and_concurrent_connections(self, recorder: Recorder) -> None:
        with (
            Server() as one,
            Server() as other,
            socket.create_connection(one.address) as first,
            socket.create_connection(other.address) as second,
            first.makefile("rwb") as stream,
        ):
            stream.write(b"one\n")
            stream.flush()
            second.sendall(b"two\n")
            assert stream.readline() == b"ONE\n"
            second.recv(10)
        assert tell(recorder.messages()) == [
            (1, "client", "one\n"),
            (2, "client", "two\n"),
            (1, "server", "ONE\n"),
            (2, "server", "TWO\n"),
        ]

    def test_recorder_records_tls_decrypted(self, recorder: Recorder, tmp_path: Path) -> None:
        ca, key = create_ca(4e9)
        certificate, _ = issue(ca, key, ["localhost"], 4e9)
        (tmp_path / "ca.pem").write_bytes(ca)
        (tmp_path / "server.pem").write_bytes(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        with Server(context, before=5) as server, socket.create_connection(server.address) as link:
            link.sendall(b"STLS\n")
            with trusting.wrap_socket(link, server_hostname="localhost") as secure:
                secure.sendall(b"PASS secret\n")
                assert secure.recv() == b"PASS SECRET\n"  # as much as there is
        assert [(each.connection, each.side, each.tls, each.text) for each in recorder.messages()] == [
            (1, "client", False, "STLS\n"),
            (1, "client", True, f"PASS {MASK}\n"),
            (1, "server", True, f"PASS {MASK}\n"),
        ]

    def test_long_message_is_shortened_and_its_rest_counted(self, recorder: Recorder) -> None:
        with Server() as server, socket.create_connection(server.address) as link:
            link.sendall(b"x" * (KEPT + 7))
            link.sendall(b"\n")
            while not link.recv(65536).endswith(b"\n"):
                pass
        first, _ = recorder.messages()
        assert (len(first.text), first.left_out) == (2000, 8)
        assert list(first.lines())[-1] == "... 8 more bytes"


class TestFaulty:
    def test_server_that_breaks_off_sends_its_parts_and_closes_in_order(self) -> None:
        with breaking_off(b"one", b"two") as port, socket.create_connection(("127.0.0.1", port), 10) as link:
            assert link.recv(10) == b"one"
            link.sendall(b"?")
            assert link.recv(10) == b"two"
            # Nothing of what it has not waited for makes the end a reset.
            for _ in range(2):
                link.sendall(b"more that it does not wait for")
                assert link.recv(10) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 10)

    def test_server_that_breaks_off_leaves_no_thread(self) -> None:
        before = threading.active_count()
        with breaking_off(b"hello"):
            pass
        with breaking_off(b"hello", b"never said") as port, socket.create_connection(("127.0.0.1", port), 10):
            pass
        assert threading.active_count() == before

    def test_silent_server_accepts_and_never_answers(self) -> None:
        with silent() as port, socket.create_connection(("127.0.0.1", port), 0.2) as link:
            link.sendall(b"hello?")
            with pytest.raises(TimeoutError):
                link.recv(1)


RUN = ExhibitRun(
    "ftplib",
    "3.13.5",
    "at Wed, 25 Nov 2026 02:30:00 GMT\n",
    None,
    (
        Message(1, "gallery_ftp:21", "client", "USER ann\n"),
        Message(1, "gallery_ftp:21", "server", "331 what now\n", tls=True),
        Message(2, "gallery_ftp:30017", "server", "data", left_out=9),
    ),
    (Failure("wrong password", "ftplib.error_perm", "530 no"), Failure("lost", None, None)),
)


def render(module: str, run: ExhibitRun) -> str:
    """Return what a terminal gets."""
    from rich.console import Console

    (exhibit,) = registry.find([module])
    console = Console(width=WIDE - 1, force_terminal=True, color_system="standard", no_color=False)
    with console.capture() as shown:
        show(exhibit, run, console)
    return shown.get()


class TestOutput:
    def test_run_is_restored_from_json(self) -> None:
        assert build(ExhibitRun, json.loads(json.dumps(asdict(RUN)))) == RUN

    def test_run_held_if_it_completed_and_each_failure_was_raised(self) -> None:
        assert not RUN.held
        better = replace(RUN, failures=RUN.failures[:1])
        assert better.held
        assert not replace(better, error="Traceback ...").held

    def test_dialogue_names_connection_and_side(self) -> None:
        assert [line for _, line in mark_lines(RUN.messages)] == [
            "-- connection 1, gallery_ftp:21",
            "C: USER ann",
            "-- connection 1, gallery_ftp:21, inside TLS",
            "S: 331 what now",
            "-- connection 2, gallery_ftp:30017",
            "S: data",
            "S: ... 9 more bytes",
        ]

    def test_long_message_shows_its_first_lines(self) -> None:
        message = Message(1, "gallery_ftp:21", "server", "".join(f"{number}\n" for number in range(100)))
        lines = [line for _, line in mark_lines([message])]
        assert lines[0] == "-- connection 1, gallery_ftp:21"
        assert lines[1:] == [*(f"S: {number}" for number in range(SHOWN)), f"S: ... {100 - SHOWN} more lines"]
        # Instead of one line there is no word of how many more; a line without text is its mark.
        for count, last in ((SHOWN + 1, f"C: {SHOWN}"), (SHOWN + 2, "C: ... 2 more lines")):
            message = Message(1, "a:1", "client", "".join(f"{number}\n" for number in range(count)))
            assert [line for _, line in mark_lines([message])][-1] == last
        assert [line for _, line in mark_lines([Message(1, "a:1", "client", "\n")])][1:] == ["C:"]

    def test_failure_is_one_line(self) -> None:
        assert show_failure(Failure("x", "ftplib.error_perm", "530 no\n  login")) == "ftplib.error_perm: 530 no login"
        assert show_failure(Failure("x", "OSError", None)) == "OSError"

    @pytest.mark.parametrize("width", [WIDE, 80])
    def test_code_and_result_are_side_by_side_on_a_wide_terminal(self, width: int) -> None:
        from rich.console import Console

        (exhibit,) = registry.find(["ftplib"])
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        with console.file:
            show(exhibit, RUN, console)
            lines = console.export_text().splitlines()
        heads = [number for number, line in enumerate(lines) if exhibit.file in line or "what it prints" in line]
        assert len(heads) == (1 if width == WIDE else 2)
        assert all(len(line) <= width for line in lines)
        shown = "\n".join(lines)
        assert f"what it prints, on Python {RUN.python}" in shown
        assert exhibit.purpose.split()[0] in shown
        for text in (
            *("def visit()", "C: USER ann", "ftplib.error_perm: 530 no", "nothing was raised"),
            *RUN.output.splitlines(),
        ):
            assert text in shown
        # Each failure beside what was tried.
        words = " ".join(shown.split())
        assert "wrong password ftplib.error_perm: 530 no" in words
        assert "lost nothing was raised" in words

    def test_list_has_a_row_per_module_in_yellow_if_it_is_gone(self) -> None:
        exhibits = registry.load()
        assert [row.style for row in make_list(exhibits).rows] == [
            "" if exhibit.gone_since is None else "yellow" for exhibit in exhibits
        ]

    def test_list_has_the_facts_of_each_module_under_their_headings(self) -> None:
        (exhibit,) = registry.find(["ftplib"])
        some = replace(
            exhibit,
            module="m",
            python2=("a", "b"),
            python3=("c", "d"),
            gone_since="3.9",
            instead="e",
            servers=("f", "g"),
        )
        none = replace(exhibit, module="n", python2=(), python3=(), gone_since=None, instead="e", servers=())
        table = make_list([some, none])
        assert {str(column.header): [str(cell) for cell in column.cells] for column in table.columns} == {
            "module": ["m", "n"],
            "Python 2": ["a, b", "-"],
            "Python 3": ["c, d", "-"],
            "gone since": ["3.9", "-"],
            "use instead": ["e", "e"],
            "servers": ["f, g", "-"],
        }

    @pytest.mark.parametrize(
        ("module", "said"),
        [
            ("ftplib", "Python 2: ftplib. Python 3: ftplib; still available. Use instead: still ftplib"),
            ("gopherlib", "Python 2: gopherlib. Python 3: -; gone since 2.6. Use instead: a socket"),
        ],
    )
    def test_head_of_an_exhibit_says_what_became_of_its_module(self, module: str, said: str) -> None:
        assert said in " ".join(render(module, RUN).split())

    def test_sides_and_failures_have_their_colours(self) -> None:
        shown = render("ftplib", replace(RUN, error="Traceback ...\nOSError: no way"))
        for text in (
            "\x1b[36mC: USER ann",
            "\x1b[32mS: 331 what now",
            "\x1b[1;31mTraceback ...",
            "\x1b[1;31mOSError: no way",
            " ftplib.error_perm: 530 no",
            "\x1b[1;31mnothing was raised",
        ):
            assert text in shown


class TestNormalise:
    @pytest.mark.parametrize(
        ("said", "kept"),
        [
            ("Date: Wed, 25 Nov 2026 02:30:00 GMT", "Date: <date>"),
            ("Date: Wed, 25 Nov 2026 02:30:00 +0000 (UTC)", "Date: <date>"),
            ("modify=20261125023000;type=file", "modify=<date>;type=file"),
            ("1 ann ann 71 Nov 25 02:30 lines.txt", "1 ann ann 71 <date> lines.txt"),
            ("20261125T02:30:00", "<date>"),
            ("227 Entering Passive Mode (172,18,0,4,117,53).", "227 Entering Passive Mode (<address>,<port>)."),
            ("gallery_ftp:30017", "gallery_ftp:<port>"),
            ("gallery_ftp:21", "gallery_ftp:21"),
            ("127.0.0.1:41234", "127.0.0.1:<port>"),
            ("+OK ready <1a.2.6b.x==@9f86d081884c>", "+OK ready <message-id>"),
            ("To: <ann@gallery.test>", "To: <ann@gallery.test>"),
            ("KDJN12 OK done (0.001 + 0.000 secs).", "TAG12 OK done (<seconds>)."),
            ("250 2.0.0 1a2b3c4d Message accepted", "250 2.0.0 <id> Message accepted"),
            ("STOR poem.txt 1892 bytes", "STOR poem.txt 1892 bytes"),
        ],
    )
    def test_variable_text_is_replaced_by_a_placeholder(self, said: str, kept: str) -> None:
        assert normalise_text(said) == kept

    def test_normalise_covers_a_whole_run_and_is_idempotent(self) -> None:
        said = "at 127.0.0.1:4711"
        run = replace(
            RUN,
            messages=(*RUN.messages[:2], replace(RUN.messages[2], text=said)),
            failures=(Failure("refused", "OSError", said), RUN.failures[1]),
        )
        once = normalise(run)
        assert once.output == "at <date>\n"
        assert (once.messages[2].peer, once.messages[2].text) == ("gallery_ftp:<port>", "at 127.0.0.1:<port>")
        assert [failure.message for failure in once.failures] == ["at 127.0.0.1:<port>", None]
        assert normalise(once) == once


def test_list_needs_no_engine(lab_here: Lab) -> None:
    rows = json.loads(lab_here("--backend", "process", "tour", "--json").stdout)
    assert [row["module"] for row in rows] == list(registry.MODULES)
    lines = lab_here("--backend", "process", "tour").stdout.splitlines()
    assert lines[0].split("\t") == ["module", "Python 2", "Python 3", "gone since", "use instead", "servers"]
    assert len(lines) == len(registry.MODULES) + 1


def test_unknown_module_and_missing_containers_are_one_line_errors(lab_here: Lab) -> None:
    unknown = lab_here("tour", "finger")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert unknown.stderr.startswith("lab: unknown module 'finger'; known: socket, ")
    none = lab_here("--backend", "process", "tour", "socket")
    assert (none.returncode, none.stderr.count("\n")) == (2, 1)
    assert "only in containers" in none.stderr


@pytest.mark.docker
@pytest.mark.xdist_group("labs")
class TestSession:
    @pytest.fixture
    def project(self, docker_project: str, find_of_project: Find) -> Iterator[str]:
        """A project; its tour must leave nothing behind."""
        yield docker_project
        left = find_of_project(f"{docker_project}-tour")
        if left:
            purge(f"{docker_project}-tour")
        assert not left

    def test_started_servers_are_stopped_again(self, project: str, lab_here: Lab, find_of_project: Find) -> None:
        done = lab_here("--project", project, "tour", "socket")
        assert done.returncode == 0, done.stderr
        assert re.search(r"^C: echo, echo, echo,$", done.stdout, re.MULTILINE)
        assert "def visit() -> None:" in done.stdout
        assert find_of_project(project) == find_of_project(f"{project}-tour") == []

    def test_running_servers_are_used_and_left_running(
        self, project: str, lab_here: Lab, find_of_project: Find, engine: docker.DockerClient
    ) -> None:
        try:
            assert lab_here("--project", project, "up", "plain_socket", "--mutual-tls").returncode == 0
            before = find_of_project(project)
            server = engine.containers.get(f"{project}-plain_socket-1").id
            done = lab_here("--project", project, "tour", "socket", "--json")
            assert done.returncode == 0, done.stderr
            (run,) = json.loads(done.stdout)["tour"]
            assert run["module"] == "socket"
            assert {message["peer"] for message in run["messages"]} >= {"plain_socket:7"}
            assert find_of_project(project) == before
            assert engine.containers.get(f"{project}-plain_socket-1").id == server
            assert find_of_project(f"{project}-tour") == []
        finally:
            lab_here("--project", project, "down")

    def test_server_that_does_not_start_is_named_and_the_others_are_shown(
        self, project: str, lab_here: Lab, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        file = copy_catalogue(
            tmp_path_factory.mktemp("broken"),
            "services: {gallery_gopher: {command: [sh, -c, echo no such luck >&2; exit 3]}}\n",
        )
        done = lab_here("--file", str(file), "--project", project, "tour", "gopherlib", "xmlrpclib", "--json")
        assert done.returncode == 1
        assert [each["module"] for each in json.loads(done.stdout)["tour"]] == ["xmlrpclib"]
        assert "not shown: gopherlib: gallery_gopher exited with code 3" in done.stderr
        assert "no such luck" in done.stderr
