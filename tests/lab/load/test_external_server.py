"""External servers under load: by address, and with a custom protocol."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.cli import main as cli
from lab.experiments.conformance.suite import check_external
from lab.load.external_server import ExternalServer, parse_target
from lab.load.measurement import encode_targets
from lab.load.workloads import WORKLOADS
from loadtests.targets import Targets
from services.protocol import Address, Transport

EXAMPLES = ROOT / "docs" / "examples"
CODEC = EXAMPLES / "length_prefixed" / "codec.py"


@pytest.fixture
def serve() -> Iterator[object]:
    """Start one of the Perl servers on a free port; return the port and the process."""
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


Load = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def load(run_here: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Load:
    """Run `lab load` in this process, with four users for a short time."""

    def run(*arguments: str, duration: str = "800ms") -> "subprocess.CompletedProcess[str]":
        command = ["load", *arguments, "--users", "4", "--warm-up", "100ms", "--duration", duration]
        capfd.readouterr()
        code = run_here(*command)
        said = capfd.readouterr()
        return subprocess.CompletedProcess(command, code, said.out, said.err)

    return run


def test_custom_protocol_is_loaded_and_each_reply_checked(serve, load: Load) -> None:
    port, process = serve("length_prefixed")
    done = load("--target", f"tcp://127.0.0.1:{port}", "--codec", str(CODEC), "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["model"], found["workload"]) == ("target", "custom_protocol")
    assert found["answered"] > 0
    assert found["failures"] == {}
    assert found["memory_bytes"] > 0  # the process that listens there was found
    assert ExternalServer([f"tcp://127.0.0.1:{port}"]).meter("target").pid == process.pid


def test_server_that_greets_and_closes_is_loaded_by_a_worker(serve, load: Load) -> None:
    port, _ = serve("banner")
    codec = str(EXAMPLES / "banner" / "codec.py")
    done = load("--target", f"tcp://127.0.0.1:{port}", "--codec", codec, "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["answered"] > 0
    assert found["failures"] == {}


def test_exception_of_a_codec_is_in_the_table(serve, load: Load, tmp_path: Path) -> None:
    port, _ = serve("length_prefixed")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(CODEC.read_text() + "\ndef reply_size(data, request):\n    return {}[len(data)]\n")
    done = load("--target", f"tcp://127.0.0.1:{port}", "--codec", str(wrong), "--headless")
    assert done.returncode == 1
    assert "KeyError: 11" in " ".join(done.stdout.split())


def test_few_replies_refused_by_the_codec_are_a_failure_unless_allowed(serve, load: Load, tmp_path: Path) -> None:
    """With a codec: the fifth reply of each connection is wrong."""
    port, _ = serve("length_prefixed")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(CODEC.read_text().replace(".upper()", '.upper().replace(b"HELLO 4", b"HULLO 4")'))
    target = ("--target", f"tcp://127.0.0.1:{port}", "--codec", str(wrong), "--json")
    for allowed, code in (((), 1), (("--allow-failures",), 0)):
        done = load(*target, *allowed, duration="1s")
        (found,) = json.loads(done.stdout)
        assert found["answered"] >= 4
        # The codec's message is where the failure is counted.
        assert {*found["failures"], *found["warm_up_failures"]} == {
            "wrong bytes (the reply is not the request in upper case)"
        }
        assert found["verdict"]["bound"] == "wrong"
        assert "× wrong bytes" in found["verdict"]["reason"]  # noqa: RUF001
        assert done.returncode == code, done.stderr


def test_perl_server_is_checked_and_loaded_by_its_address(serve, load: Load) -> None:
    port, _ = serve("perl_echo")
    target = f"echo=tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "lab", "check", "--target", target, "--json"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    outcomes = [item["outcome"] for item in json.loads(checked.stdout)["findings"]]
    assert len(outcomes) == 5
    assert set(outcomes) == {"passed"}
    (found,) = json.loads(load("--preset", "closed_echo_1k", "--target", target, "--json").stdout)
    assert found["answered"] > 0
    assert found["failures"] == {}


def test_target_is_loaded_over_its_transport(server, load: Load) -> None:
    url = server.url("echo", "udp")
    done = load("--preset", "closed_echo_1k", "--target", f"echo={url}", "--json")
    (found,) = json.loads(done.stdout)
    # On a busy machine, the generator may have had no core for a while.
    assert done.returncode == 2 * (found["verdict"]["bound"] == "disturbed"), done.stderr
    assert (found["transport"], found["failures"]) == ("udp", {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "ohce=tcp://127.0.0.1:7"], "--target 'ohce=tcp://127.0.0.1:7' is not SERVICE=URL with one of"),
        (["--target", "tcp://127.0.0.1", "--codec", str(CODEC)], "has no port"),
        (["--codec", str(CODEC)], "--codec and --any-body go with a --target"),
        (["--target", "echo=tcp://127.0.0.1:7", "plain_socket"], "either models of the catalogue or"),
        (["--target", "echo=tcp://127.0.0.1:7"], "the target speaks echo, and closed_session asks command"),
        (["--target", "tcp://127.0.0.1:7"], "needs a --codec"),
    ],
)
def test_invalid_load_is_a_one_line_error_with_exit_code_2(
    run_here: Callable[..., int], capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run_here("load", *arguments) == 2
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1
    assert said in error


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http=http://127.0.0.1:8000", "tcp://127.0.0.1:8000"),
        ("http=http://localhost", "tcp://localhost:80"),
        ("http=http://[::1]", "tcp://[::1]:80"),
        ("http=https://localhost", "tls://localhost:443"),
        ("http=https://localhost:8443", "tls://localhost:8443"),
        ("http=tcp://localhost", "tcp://localhost:8080"),
        ("http=unix:///run/lab/x.sock", "unix:///run/lab/x.sock"),
    ],
)
def test_address_of_a_web_server_may_be_its_url(text: str, address: str) -> None:
    target = parse_target(text)
    assert (target.service, target.address, target.path) == ("http", Address.parse(address), "")


@pytest.mark.parametrize(
    ("text", "address", "path"),
    [
        ("http=http://[::1]/", "tcp://[::1]:80", "/"),
        ("http=https://localhost:8443/health", "tls://localhost:8443", "/health"),
        ("http=http://127.0.0.1:8000/a/b?c=%20d&e", "tcp://127.0.0.1:8000", "/a/b?c=%20d&e"),
    ],
)
def test_url_of_a_web_server_may_have_a_path(text: str, address: str, path: str) -> None:
    target = parse_target(text)
    assert (target.address, target.path) == (Address.parse(address), path)


@pytest.mark.parametrize("path", ["/a b", "/ä", "/%", "/%4g", "/a#b", "/\r\nHost: x"])
def test_path_with_other_characters_is_refused(path: str) -> None:
    with pytest.raises(LabError, match="is not a path"):
        parse_target(f"http=http://localhost{path}")


def test_url_is_only_for_http() -> None:
    with pytest.raises(LabError, match="does not start with tcp://"):
        parse_target("echo=http://localhost")


def test_target_is_parsed_to_an_address() -> None:
    target = parse_target("echo=tcp://localhost")
    assert (target.service, target.address.port) == ("echo", 7)
    assert parse_target("tcp://127.0.0.1:9001").service == "custom"
    with pytest.raises(LabError, match="does not start with"):
        parse_target("echo=localhost:7")


@pytest.mark.parametrize(("text", "what"), [("discard=tls://h", "discard over tls"), ("tls://h", "a custom protocol")])
def test_target_without_a_port_that_has_no_default_is_refused(text: str, what: str) -> None:
    with pytest.raises(LabError) as raised:
        parse_target(text)
    said = f"--target {text!r} has no port, and {what} has no default: add it, as in tls://h:9000"
    assert str(raised.value) == said


def test_target_is_shown_with_its_addresses_and_paths() -> None:
    model = ExternalServer(["http=http://h:1/a?b", "echo=udp://h:2", "http=https://h/", "echo=udp://h:2"]).model
    assert (model.name, model.family) == ("target", "yours")
    assert model.summary == "tcp://h:1/a?b, udp://h:2, tls://h:443/"


def test_generator_names_an_invalid_codec(serve, load: Load, tmp_path: Path) -> None:
    port, _ = serve("length_prefixed")
    broken = tmp_path / "broken.py"
    broken.write_text("encode = 1\n")
    done = load("--target", f"tcp://127.0.0.1:{port}", "--codec", str(broken))
    assert done.returncode == 2
    assert "the codec has no function encode" in done.stderr


def _pages(pages: dict[bytes, bytes]) -> Callable[[Any], None]:
    """Answer the first request of each connection."""

    def behave(connection: Any) -> None:
        if head := connection.recv(65536):
            path = head.split(b" ")[1]
            status, body = (b"200 OK", pages[path]) if path in pages else (b"404 Not Found", b"")
            connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    return behave


def test_page_is_asked_before_the_load_starts(open_server: Any) -> None:
    with open_server(_pages({b"/health": b"fine", b"/ping": b"PANG\n"})) as (host, port):
        url = f"http=http://{host}:{port}"
        ExternalServer([f"{url}/health"]).check(WORKLOADS["http_ping"], Transport.TCP)
        ExternalServer([f"{url}/health"]).check(WORKLOADS["http_churn"], Transport.TCP)
        with pytest.raises(LabError) as caught:
            ExternalServer([f"{url}/none"]).check(WORKLOADS["http_ping"], Transport.TCP)
        said = f"--target {url}/none: GET /none: error reply (status 404); with a path, the workloads http_ping and"
        assert str(caught.value).startswith(said)
        with pytest.raises(
            LabError, match=r"GET /ping: wrong bytes .*needs the path of a page that answers with status"
        ):
            ExternalServer([url]).check(WORKLOADS["http_ping"], Transport.TCP)
        with pytest.raises(
            LabError, match=r"POST /echo: error reply \(status 404\); a server without this lab's routes"
        ):
            ExternalServer([url]).check(WORKLOADS["http_echo_1k"], Transport.TCP)


def test_page_is_asked_by_the_address_of_the_target(open_server: Any) -> None:
    """A server with several hosts chooses the page by it; RFC 9110, 7.2: with a port that is not the default."""
    heads: list[bytes] = []

    def behave(connection: Any) -> None:
        if head := connection.recv(65536):
            heads.append(head)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with open_server(behave) as (host, port):
        ExternalServer([f"http=http://{host}:{port}/a"]).check(WORKLOADS["http_ping"], Transport.TCP)
    assert heads == [f"GET /a HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: socketlab\r\n\r\n".encode()]


def test_server_that_is_silent_or_closes_is_named(open_server: Any) -> None:
    with open_server(lambda connection: connection.recv(65536)) as (host, port):
        target = ExternalServer([f"http=http://{host}:{port}/"])
        with pytest.raises(LabError, match="GET /: closed without a reply"):
            target.check(WORKLOADS["http_ping"], Transport.TCP)


def test_page_may_end_with_its_connection(open_server: Any) -> None:
    """RFC 9112, 6.3: a reply without a length."""

    def behave(connection: Any) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nfine")

    with open_server(behave) as (host, port):
        ExternalServer([f"http=http://{host}:{port}/"]).check(WORKLOADS["http_ping"], Transport.TCP)


@pytest.mark.parametrize("workload", ["http_echo_1k", "http_sleep", "http_mixed", "ws_echo"])
def test_workload_of_this_labs_routes_is_refused_for_a_page(workload: str) -> None:
    target = ExternalServer(["http=http://127.0.0.1:9/health"])
    with pytest.raises(LabError, match=rf"^{workload} does not fit --target http=http://127.0.0.1:9/health: it asks"):
        target.check(WORKLOADS[workload], Transport.TCP)


def test_page_reaches_the_load_generator() -> None:
    for any_body in (False, True):
        server = ExternalServer(["http=http://127.0.0.1:9/a?b"], any_body=any_body)
        targets = Targets.from_json(encode_targets(server.targets()))
        assert targets.find_page("target", "http", Transport.TCP) == ("/a?b", any_body)
    targets = Targets.from_json(encode_targets(ExternalServer(["http=http://127.0.0.1:9"]).targets()))
    assert targets.find_page("target", "http", Transport.TCP) is None


def test_any_body_needs_a_page() -> None:
    with pytest.raises(LabError, match="--any-body needs a page"):
        ExternalServer(["http=http://127.0.0.1:9"], any_body=True)
    with pytest.raises(LabError, match="--any-body go with a --target"):
        cli.cli.main(["load", "plain_socket", "--any-body"], standalone_mode=False)


def test_conformance_suite_chooses_its_own_paths() -> None:
    for target in ("http=http://127.0.0.1:9/health", "websocket=ws://127.0.0.1:9/chat"):
        with pytest.raises(LabError, match="the suite chooses the paths itself: omit /"):
            check_external([target], rfc_only=True, progress=False)
