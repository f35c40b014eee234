"""Clients that people have, each against another model."""

import asyncio
import http.client
import json
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
import websockets
import websockets.sync.client

from lab.servers.certificates import ensure_certificates
from tests.support.servers import NAMES, Server

# Larger than one read, and no multiple of anything.
BODY = bytes(range(256)) * 1500 + b"end"


@pytest.fixture
def server(model: str, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "s").mkdir()
    with Server(model, tmp_path / "s", {}) as server:
        yield server


def of(name: str) -> pytest.MarkDecorator:
    """Against one model, in the place of all."""
    return pytest.mark.parametrize("model", [name])


def url(server: Server, path: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.address('http', 'tcp').port}{path}"


def run(*command: object, given: bytes = b"") -> bytes:
    done = subprocess.run([str(word) for word in command], input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@of("asyncio_protocol")
def test_curl(server: Server, tmp_path: Path) -> None:
    curl = "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30"
    (tmp_path / "body").write_bytes(BODY)
    assert run(*curl, url(server, "/ping"), url(server, "/sleep/1"), url(server, "/stream/0")) == b"PONG\nOK\n"
    assert run(*curl, "--http1.0", url(server, "/ping")) == b"PONG\n"
    assert run(*curl, "--http1.0", url(server, "/stream/100")).count(b"\r\n") == 100
    assert run(*curl, "--data-binary", f"@{tmp_path / 'body'}", url(server, "/echo")) == BODY
    assert run(*curl, "--upload-file", "-", "--request", "POST", url(server, "/echo"), given=BODY) == BODY
    expect = "--header", "Expect: 100-continue", "--expect100-timeout", 20
    assert run(*curl, *expect, "--data-binary", f"@{tmp_path / 'body'}", url(server, "/echo")) == BODY
    assert run(*curl, "--head", url(server, "/blob/7")).count(b"Content-Length: 7\r\n") == 1
    assert run(*curl, "--http2", url(server, "/ping")) == b"PONG\n"  # offers h2c, which is ignored
    assert run(*curl, "--no-buffer", url(server, "/events/3?every=1")).count(b"data: ") == 3
    assert run(*curl, "--unix-socket", server.address("http", "unix").path, "http://lab/ping") == b"PONG\n"
    ca = ensure_certificates(NAMES) / "ca.pem"
    port = server.address("http", "tls").port
    assert run(*curl, "--cacert", ca, f"https://localhost:{port}/ping") == b"PONG\n"


@of("uvloop_protocol")
def test_wget(server: Server) -> None:
    assert run("wget", "--quiet", "--output-document=-", url(server, "/ping"), url(server, "/sleep/1")) == b"PONG\nOK\n"
    assert len(run("wget", "--quiet", "--output-document=-", url(server, "/stream/1000"))) == 74_000


@of("thread_pool")
def test_http_client(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.address("http", "tcp").port or 0, timeout=30)
    for _ in range(2):
        connection.request("GET", "/ping")
        assert connection.getresponse().read() == b"PONG\n"
        connection.request("POST", "/echo", iter([b"in ", b"pieces"]), encode_chunked=True)
        assert connection.getresponse().read() == b"in pieces"
        connection.request("HEAD", "/info")
        assert connection.getresponse().read() == b""
    connection.close()


@of("prefork")
def test_urllib(server: Server) -> None:
    opener = urllib.request.build_opener()
    with opener.open(url(server, "/stream/3")) as reply:
        assert len(reply.read()) == 3 * 74
    with opener.open(url(server, "/echo"), b"hello") as reply:
        assert reply.read() == b"hello"
    with pytest.raises(urllib.error.HTTPError, match="404") as raised:
        opener.open(url(server, "/nothing"))
    raised.value.close()


@of("gevent_greenlets")
def test_requests(server: Server) -> None:
    with requests.Session() as session:
        assert session.get(url(server, "/info"), timeout=30).json()["server"]["model"] == "gevent_greenlets"
        assert session.post(url(server, "/echo"), BODY, timeout=30).content == BODY
        assert session.post(url(server, "/echo"), iter([BODY, BODY]), timeout=30).content == BODY * 2
        assert session.options(url(server, "/echo"), timeout=30).headers["Allow"] == "OPTIONS, POST"
        with session.get(url(server, "/stream/1000"), stream=True, timeout=30) as reply:
            assert sum(map(len, reply.iter_content(100))) == 74_000


@of("trio_nursery")
def test_httpx(server: Server) -> None:
    with httpx.Client(timeout=30) as client:
        assert client.get(url(server, "/ping")).text == "PONG\n"
        assert client.post(url(server, "/echo"), content=BODY).content == BODY
        assert client.post(url(server, "/echo"), content=iter([BODY, BODY])).content == BODY * 2
        with client.stream("GET", url(server, "/events/3?every=1")) as reply:
            assert [line for line in reply.iter_lines() if line.startswith("data")] == ["data: 1", "data: 2", "data: 3"]


@of("asyncio_streams")
def test_aiohttp(server: Server) -> None:
    async def visit() -> None:
        async with aiohttp.ClientSession() as session:
            pages = await asyncio.gather(*(session.get(url(server, f"/sleep/{count}")) for count in range(20)))
            assert [await page.text() for page in pages] == ["OK\n"] * 20
            async with session.post(url(server, "/echo"), data=BODY) as reply:
                assert await reply.read() == BODY
            async with session.ws_connect(url(server, "/ws"), compress=15) as link:
                await link.send_str("hello " * 100)
                assert await link.receive_str() == "hello " * 100
                await link.send_bytes(BODY)
                assert await link.receive_bytes() == BODY

    asyncio.run(visit())


@pytest.mark.parametrize("compression", [None, "deflate"])
@of("selector_loop")
def test_websockets(server: Server, compression: str | None) -> None:
    with websockets.sync.client.connect(url(server, "/ws", "ws"), compression=compression, max_size=None) as link:
        for message in ("hello", "é€𝄞" * 20_000, b"", BODY, "x" * 200):
            link.send(message)
            assert link.recv() == message
        link.send(["in ", "frag", "ments"])
        assert link.recv() == "in fragments"
        link.send("BLOB 300000")
        pieces = [piece for piece in link.recv_streaming() if isinstance(piece, str)]
        assert "".join(pieces) == "".join(chr(32 + index % 95) for index in range(300_000))
        assert link.ping().wait(30)
        link.send("QUIT")
        assert link.recv() == "OK"
        with pytest.raises(websockets.ConnectionClosedOK):
            link.recv()


@of("twisted_reactor")
def test_websocket_over_tls_ends_by_the_client(server: Server) -> None:
    context = ssl.create_default_context(cafile=ensure_certificates(NAMES) / "ca.pem")
    port = server.address("http", "tls").port
    with websockets.sync.client.connect(f"wss://localhost:{port}/ws", ssl=context) as link:
        link.send("PING")
        assert link.recv() == "PONG"
        link.close(4000, "enough")
        assert link.close_code == 4000


_NODE = """
const [url] = process.argv.slice(1);
const ping = await (await fetch(url + "/ping")).text();
const echo = await (await fetch(url + "/echo", { method: "POST", body: "hello" })).text();
const lines = (await (await fetch(url + "/stream/100")).text()).split("\\r\\n").length;
const link = typeof WebSocket === "undefined" ? null : new WebSocket(url.replace("http", "ws") + "/ws");
const said = link && await new Promise((resolve, reject) => {
  link.onopen = () => link.send("PING");
  link.onmessage = (event) => { resolve(event.data); link.close() };
  link.onerror = reject;
});
console.log(JSON.stringify([ping, echo, lines, said ?? "PONG"]));
"""


if NODE := shutil.which("node"):

    @of("asyncio_prefork")
    def test_node(server: Server) -> None:
        said = run(NODE, "--input-type=module", "--eval", _NODE, "--", url(server, ""))
        assert json.loads(said) == ["PONG\n", "hello", 101, "PONG"]
