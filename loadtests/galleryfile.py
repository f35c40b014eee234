"""Locust's users of the gallery: clients of the standard library, with each reply checked. A separate locustfile.

    locust -f loadtests/galleryfile.py                                          only the gallery
    locust -f loadtests/locustfile.py,loadtests/galleryfile.py --class-picker   together with the models

Locust patches the sockets of these clients, so one that waits does not block the others. They pause between two steps
as people do: the test shows whether the servers keep working, not which is fastest.
"""

import ftplib
import http.client
import imaplib
import io
import logging
import random
import smtplib
import ssl
import time
import warnings
import xmlrpc.client
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from email.message import EmailMessage
from time import perf_counter
from typing import Any, ClassVar, Generic, TypeVar, cast
from uuid import uuid4

import locust.stats
from locust import User, between, task
from locust.exception import RescheduleTask

from loadtests import lifeline
from loadtests.buckets import bucket_three_digits

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # deprecated since Python 3.11
    import nntplib

# Locust's own hook, as in loadtests/locustfile.py: whole milliseconds are too coarse for half of these steps.
locust.stats.bucket_response_time = cast(Any, bucket_three_digits)

lifeline.watch()

# Locust loads this file under another module name.
log = logging.getLogger("loadtests.galleryfile")

ANN, BOB = ("ann", "anns-secret"), ("bob", "bobs-secret")
DOMAIN = "gallery.test"

# Seconds until a step fails.
TIMEOUT = 10.0
# Seconds between two polls.
_PAUSE = 0.02

Client = TypeVar("Client")


class WrongReplyError(Exception):
    """The server sent a wrong reply."""


# The errors of the clients. Any other exception is a bug in this file, and Locust reports it as one.
FAILURES = (
    OSError,
    EOFError,
    WrongReplyError,
    ftplib.Error,
    http.client.HTTPException,
    imaplib.IMAP4.error,
    nntplib.NNTPError,
    smtplib.SMTPException,
    ssl.SSLError,
    xmlrpc.client.Error,
)


def expect(reply: object, expected: object) -> None:
    """Check a reply.

    Raises:
        WrongReplyError: it is not the expected one.
    """
    if reply != expected:
        raise WrongReplyError(f"{reply!r:.80} instead of {expected!r:.80}")


class GalleryUser(User, Generic[Client]):
    """A user with one client, which makes a step, pauses, and makes the next. After a failure it gets a new client."""

    # Locust's attribute for a base class. Its metaclass excludes abc's.
    abstract = True
    wait_time = between(0.5, 1.5)
    protocol: ClassVar[str]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._client: Client | None = None

    def connect(self) -> Client:
        """Return a connected client, logged in if the server requires it."""
        # Not by `abc`: Locust's users have a metaclass of their own.
        raise NotImplementedError

    def disconnect(self, client: Client) -> None:
        """Log out and close. Most clients do both at the end of their `with` block."""
        with cast(AbstractContextManager[object], client):
            pass

    def on_stop(self) -> None:
        self._drop()

    @contextmanager
    def step(self, name: str) -> Iterator[Client]:
        """Count a step under its name, and yield the client; a connect is counted as a separate step.

        Raises:
            RescheduleTask: the client could not connect. Locust ends the task, and pauses.
        """
        if self._client is None:
            with self._counted("connect"):
                self._client = self.connect()
        if self._client is None:
            raise RescheduleTask
        with self._counted(name):
            yield self._client

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        begin = perf_counter()
        failure: BaseException | None = None
        try:
            yield
        except FAILURES as error:
            failure = error
            log.error("%s %s: %s: %s", self.protocol, name, type(error).__name__, error)
            self._drop()
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=name,
            response_time=(perf_counter() - begin) * 1000,
            response_length=0,
            exception=failure,
            context={},
        )

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(*FAILURES):
                self.disconnect(client)


class FtpUser(GalleryUser[ftplib.FTP]):
    """Uploads a file, and downloads it again."""

    host = "gallery_ftp"
    protocol = "FTP"

    def on_start(self) -> None:
        self._path = f"pub/load-{uuid4().hex}"
        self._content: bytes | None = None

    def on_stop(self) -> None:
        if self._client is not None and self._content is not None:
            with suppress(*FAILURES):
                self._client.delete(self._path)
        super().on_stop()

    def connect(self) -> ftplib.FTP:
        return ftplib.FTP(self.host, *ANN, timeout=TIMEOUT)

    @task
    def upload(self) -> None:
        content = random.randbytes(random.randint(1, 64 * 1024))
        with self.step("upload") as client:
            self._content = None
            client.storbinary(f"STOR {self._path}", io.BytesIO(content))
            self._content = content

    @task(3)
    def download(self) -> None:
        if self._content is None:
            return
        with self.step("download") as client:
            received: list[bytes] = []
            client.retrbinary(f"RETR {self._path}", received.append)
            expect(b"".join(received), self._content)


class MailUser(GalleryUser[tuple[smtplib.SMTP, imaplib.IMAP4]]):
    """Sends mail to bob by SMTP, and reads it as bob by IMAP."""

    host = "gallery_smtp"
    protocol = "mail"

    def connect(self) -> tuple[smtplib.SMTP, imaplib.IMAP4]:
        """Open an SMTP connection, and an IMAP connection that is logged in."""
        reader = imaplib.IMAP4("gallery_mail", timeout=TIMEOUT)
        try:
            reader.login(*BOB)
            reader.select()
            return smtplib.SMTP(self.host, timeout=TIMEOUT), reader
        except BaseException:
            reader.shutdown()
            raise

    def disconnect(self, client: tuple[smtplib.SMTP, imaplib.IMAP4]) -> None:
        """QUIT, and LOGOUT."""
        with client[0], client[1]:
            pass

    @task
    def send_and_read(self) -> None:
        """Send a message by SMTP, fetch it by IMAP, and delete it."""
        message = EmailMessage()
        subject = uuid4().hex
        message["From"], message["To"], message["Subject"] = f"ann@{DOMAIN}", f"bob@{DOMAIN}", subject
        message.set_content(f"Hello.\n.\n{subject}\n")
        sent = False
        with self.step("SMTP send") as (sender, _):
            sender.send_message(message)
            sent = True
        if sent:
            with self.step("IMAP fetch") as (_, reader):
                number = self._find(reader, subject)
                # The server may add notices about other clients of the mailbox; the answer with the text is a pair.
                answers = reader.uid("FETCH", number, "(BODY.PEEK[TEXT])")[1]
                texts = [answer[1] for answer in answers if isinstance(answer, tuple)]
                expect(texts, [f"Hello.\r\n.\r\n{subject}\r\n".encode()])
                reader.uid("STORE", number, "+FLAGS.SILENT", r"(\Deleted)")
                reader.uid("EXPUNGE", number)

    def _find(self, reader: imaplib.IMAP4, subject: str) -> str:
        """Wait for a message; return its UID."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            reader.noop()
            if numbers := reader.uid("SEARCH", "SUBJECT", subject)[1][0]:
                return str(numbers.decode())
            time.sleep(_PAUSE)
        raise WrongReplyError(f"an accepted message did not arrive within {TIMEOUT:g} s")


class WebUser(GalleryUser[http.client.HTTPConnection]):
    """Reads pages over a kept connection."""

    host = "gallery_web"
    protocol = "HTTP"
    suffix = "kept"
    lines = "".join(f"line {number}\n" for number in range(1, 11)).encode()

    def connect(self) -> http.client.HTTPConnection:
        client = http.client.HTTPConnection(self.host, timeout=TIMEOUT)
        client.connect()
        return client

    def disconnect(self, client: http.client.HTTPConnection) -> None:
        client.close()

    def get(self, path: str, status: int, content: bytes, **headers: str) -> None:
        with self.step(f"GET {path}, {self.suffix}") as client:
            client.request("GET", path, headers=headers)
            response = client.getresponse()
            expect((response.status, response.read()), (status, content))

    @task(10)
    def read_file(self) -> None:
        self.get("/lines.txt", 200, self.lines)

    @task(3)
    def read_range(self) -> None:
        self.get("/lines.txt", 206, self.lines[7:14], Range="bytes=7-13")

    @task
    def run_script(self) -> None:
        """Run a CGI script: a process per request, the most expensive step for the server."""
        number = random.randint(0, 9999)
        with self.step(f"CGI, {self.suffix}") as client:
            client.request("GET", f"/cgi-bin/form.py?a={number}")
            response = client.getresponse()
            expect((response.status, response.read()), (200, f"GET\na = {number}\n".encode()))


class WebChurnUser(WebUser):
    """Reads pages, each over a new connection."""

    suffix = "new"

    @contextmanager
    def step(self, name: str) -> Iterator[http.client.HTTPConnection]:
        with super().step(name) as client:
            yield client
        self._drop()


class XmlRpcUser(GalleryUser[xmlrpc.client.ServerProxy]):
    """Calls procedures."""

    host = "gallery_xmlrpc"
    protocol = "XML-RPC"

    def connect(self) -> xmlrpc.client.ServerProxy:
        """Open the connection by a first call."""
        client = xmlrpc.client.ServerProxy(f"http://{self.host}:8000/RPC2", transport=_Transport())
        client.system.listMethods()
        return client

    @task(3)
    def add(self) -> None:
        a, b = random.randint(0, 9999), random.randint(0, 9999)
        with self.step("add") as client:
            expect(client.add(a, b), a + b)

    @task
    def reverse(self) -> None:
        data = random.randbytes(1024)
        with self.step("reverse") as client:
            expect(client.reverse(xmlrpc.client.Binary(data)), xmlrpc.client.Binary(data[::-1]))


class _Transport(xmlrpc.client.Transport):
    """A transport with a timeout."""

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = TIMEOUT
        return connection


class NewsUser(GalleryUser[nntplib.NNTP]):
    """Posts an article, and reads it and the group's overview."""

    host = "gallery_news"
    protocol = "NNTP"

    def on_start(self) -> None:
        self._posted: tuple[str, str] | None = None

    def connect(self) -> nntplib.NNTP:
        """Log in as ann, and enter the group."""
        client = nntplib.NNTP(self.host, user=ANN[0], password=ANN[1], timeout=TIMEOUT)
        client.group(DOMAIN)
        return client

    @task
    def post(self) -> None:
        subject = uuid4().hex
        message_id = f"<{subject}@load.{DOMAIN}>"
        headers = (f"From: ann@{DOMAIN}", f"Newsgroups: {DOMAIN}", f"Subject: {subject}", f"Message-ID: {message_id}")
        with self.step("post") as client:
            self._posted = None
            client.post("\r\n".join([*headers, "", subject]).encode())
            self._posted = message_id, subject

    @task(4)
    def read(self) -> None:
        if self._posted is None:
            return
        message_id, text = self._posted
        with self.step("read") as client:
            expect(client.body(message_id)[1].lines, [text.encode()])

    @task(2)
    def look_around(self) -> None:
        with self.step("overview") as client:
            _, count, first, last, _ = client.group(DOMAIN)
            if count:
                numbers = [number for number, _ in client.over((max(first, last - 9), last))[1]]
                expect(all(first <= number for number in numbers) and bool(numbers), True)
