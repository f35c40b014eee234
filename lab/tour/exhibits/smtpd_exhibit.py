"""A mail server in a class with one method, which handles a message that has arrived.

Python 2: smtpd
Python 3: smtpd
Gone since: 3.12
Use instead: aiosmtpd, shown here too; smtpd itself comes from Debian's python3-standard-smtpd
Servers: gallery_smtpd
"""

import asyncore
import contextlib
import smtpd
import smtplib
import threading
from collections.abc import Iterator
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from lab.tour.accounts import ANN, BOB
from lab.tour.faulty import Failures

MAIL = f"From: {ANN.address}\r\nTo: {BOB.address}\r\nSubject: {{}}\r\n\r\nHello.\r\n"
LIMIT = 1000  # largest message, in bytes


class Old(smtpd.SMTPServer):
    """The old server: a channel of asyncore for each client; this method is called for each message."""

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: bytes, **options: Any) -> str | None:
        print("smtpd:   ", mailfrom, "to", rcpttos, data.splitlines()[2])
        return None if rcpttos == [BOB.address] else "550 no such user here"  # the client has already sent all of it


class New:
    """The successor: a coroutine for each step that the application handles."""

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, to: str, options: list[str]) -> str:
        if to != BOB.address:
            return "550 no such user here"  # the client has not sent the message yet
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        print("aiosmtpd:", envelope.mail_from, "to", envelope.rcpt_tos, bytes(envelope.content or b"").splitlines()[2])
        return "250 accepted"


def send(port: int, subject: str, to: str = BOB.address, host: str = "127.0.0.1") -> None:
    with smtplib.SMTP(host, port, timeout=10) as smtp:
        smtp.sendmail(ANN.address, [to], MAIL.format(subject))


@contextlib.contextmanager
def old_server() -> Iterator[int]:
    """Serve in a thread: one loop of asyncore for all channels of a map. Yield the port."""
    channels: dict[int, Any] = {}
    server = Old(("127.0.0.1", 0), None, data_size_limit=LIMIT, map=channels)
    thread = threading.Thread(target=asyncore.loop, kwargs={"timeout": 0.1, "map": channels})
    thread.start()
    yield server.socket.getsockname()[1]
    asyncore.close_all(channels)  # the loop returns when no channel is left
    thread.join()


@contextlib.contextmanager
def new_server() -> Iterator[int]:
    """Serve with aiosmtpd, which starts its own thread and loop. Yield the port."""
    controller = Controller(New(), hostname="127.0.0.1", port=8025, data_size_limit=LIMIT)
    controller.start()
    yield controller.port
    controller.stop()


def visit() -> None:
    with old_server() as port:
        send(port, "by smtpd")
    with new_server() as port:
        send(port, "by aiosmtpd")
    send(2525, "to the gallery", host="gallery_smtpd")
    print("gallery:  accepted")


def failures() -> Failures:
    with old_server() as port:
        yield "smtpd, recipient refused after the message", lambda: send(port, "lost", to=ANN.address)
        yield "smtpd, message too large", lambda: send(port, "x" * LIMIT)
    with new_server() as port:
        yield "aiosmtpd, recipient refused before the message", lambda: send(port, "lost", to=ANN.address)
        yield "aiosmtpd, message too large", lambda: send(port, "x" * LIMIT)
        yield "address in use", lambda: smtpd.SMTPServer(("127.0.0.1", port), None)
