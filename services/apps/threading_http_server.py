"""The standard library's `http.server.ThreadingHTTPServer`: a thread for each connection.

Its documentation says that it is not for production. It is here because it is widely known.
"""

import signal
import sys
import time
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from services.apps import routes
from services.protocol.events import SEND_SIZE, Compute

PORT = 8080


class Handler(BaseHTTPRequestHandler):
    """Answers the routes."""

    # The class's default is HTTP/1.0, which closes the connection after each reply.
    protocol_version = "HTTP/1.1"
    # Without it a reply of two writes waits for the client's delayed ACK (Nagle): 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        found = routes.find(self.command, path)
        if not isinstance(found, routes.Work) or found.name != "echo":
            self._leave_body()
        if isinstance(found, routes.Refusal):
            self._answer(found.status, routes.TEXT, found.body, found.headers)
            return
        match found.name:
            case "ping":
                self._answer(200, routes.TEXT, routes.PONG)
            case "sleep":
                time.sleep(found.number / 1000)
                self._answer(200, routes.TEXT, routes.OK)
            case "burn":
                self._answer(200, routes.TEXT, Compute(found.number).run() + b"\n")
            case "echo":
                self._echo()
            case "blob":
                self._start(200, routes.BYTES, found.number)
                for piece in routes.pieces_of_blob(found.number):
                    self._write(piece)
            case "stream":
                self._write_chunks(routes.TEXT, routes.lines(found.number))
            case "events":
                fields = (("Cache-Control", "no-store"),)
                self._write_chunks(routes.EVENTS, routes.events(found.number), routes.read_pause(query), fields)
            case "info":
                self._answer(200, routes.JSON, routes.info(self.request_version))
            case "ws":
                self._answer(501, routes.TEXT, b"http.server cannot serve WebSocket\n")
            case _:
                self._answer(200, *routes.greet(self.headers.get("Accept", "")))

    # http.server calls do_METHOD.
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Log nothing for a request: a line on stderr for each costs more than the reply."""

    def _leave_body(self) -> None:
        """Close after the reply, if there is a body: unread, it would be taken for the next request."""
        self.close_connection |= "Content-Length" in self.headers or "Transfer-Encoding" in self.headers

    def _start(self, status: int, kind: str = "", size: int | None = None, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if size is not None:
            self.send_header("Content-Length", str(size))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, status: int, kind: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        if status == HTTPStatus.NO_CONTENT:
            self._start(status, "", None, *headers)
            return
        self._start(status, kind, len(body), *headers)
        self._write(body)

    def _write(self, piece: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(piece)

    def _write_chunks(
        self, kind: str, pieces: Iterable[bytes], pause: float = 0.0, fields: Iterable[tuple[str, str]] = ()
    ) -> None:
        is_chunked = self.request_version not in ("HTTP/0.9", "HTTP/1.0")
        if is_chunked:
            self._start(200, kind, None, *fields, ("Transfer-Encoding", "chunked"))
        else:
            self.close_connection = True
            self._start(200, kind, None, *fields)
        for number, piece in enumerate(pieces):
            time.sleep(pause if number else 0.0)
            self._write(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            self._write(b"0\r\n\r\n")

    def _echo(self) -> None:
        # http.server does not read chunked bodies, and an application on it has to refuse them.
        length = ",".join(self.headers.get_all("Content-Length", []))  # of several, none is believed
        is_number = length.isdecimal() and len(length) <= 19  # int() fails from 4300 digits on
        if "Transfer-Encoding" in self.headers or not is_number:
            self._leave_body()
            self._answer(411, routes.TEXT, b"this server needs Content-Length\n")
            return
        self._start(200, self.headers.get("Content-Type") or routes.BYTES, int(length))
        left = int(length)
        while left and (piece := self.rfile.read1(min(SEND_SIZE, left))):
            left -= len(piece)
            self.wfile.write(piece)


class Server(ThreadingHTTPServer):
    """With a backlog as the other servers have; the library's 5 drops connections under any load."""

    request_queue_size = 1024


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Server(("", PORT), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
