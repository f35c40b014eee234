"""Locust's users of the gallery: the standard library's own clients, every reply checked. A locustfile of its own.

    locust -f loadtests/galleryfile.py                                          the gallery alone
    locust -f loadtests/locustfile.py,loadtests/galleryfile.py --class-picker   beside the models

Locust has patched the sockets that these clients open, so each waits without holding the others up. They are moderate
on purpose, with a pause between two steps, as of people: what is seen is whether the servers hold, not who is fastest.
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
from contextlib import contextmanager, suppress
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
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.11 still has it, and says that it is the last
    import nntplib

# Locust's own hook, as in loadtests/locustfile.py: whole milliseconds are too few for half of these steps.
locust.stats.bucket_response_time = cast(Any, bucket_three_digits)

lifeline.watch()

# Locust loads this file under a name of its own.
log = logging.getLogger("loadtests.galleryfile")

ANN, BOB = ("ann", "anns-secret"), ("bob", "bobs-secret")
DOMAIN = "gallery.test"

# Seconds that a client waits before a step has failed.
PATIENCE = 10.0
# What it waits for, as often as so many seconds have passed.
_PAUSE = 0.02

Client = TypeVar("Client")


class WrongReplyError(Exception):
    """The server has answered, but not what it should have."""


# What a step can fail by: each client has errors of its own. Everything else is a bug here, and Locust shows it as one.
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


def expect(said: object, wanted: object) -> None:
    """See that a reply is the one that was wanted.

    Raises:
        WrongReplyError: it is not.
    """
    if said != wanted:
        raise WrongReplyError(f"{said!r:.80} instead of {wanted!r:.80}")


class GalleryUser(User, Generic[Client]):
    """Somebody with one client, who takes a step, pauses, and takes the next. After a failure the client is another."""

    # Locust's own word for a base class, whose metaclass leaves no room for abc's.
    abstract = True
    wait_time = between(0.5, 1.5)
    protocol: ClassVar[str]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._client: Client | None = None

    def connect(self) -> Client:
        """A client that is connected, and logged in where that is asked for."""
        raise NotImplementedError

    def disconnect(self, client: Client) -> None:
        """Say good-bye."""
        raise NotImplementedError

    def on_stop(self) -> None:
        """Called by Locust."""
        self._drop()

    @contextmanager
    def step(self, name: str) -> Iterator[Client]:
        """One step, counted under its name, with the client that it needs; to connect is one of its own.

        Raises:
            RescheduleTask: there is no client to be had. Locust ends the task, and pauses.
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
    """Uploads a file of its own, and reads it again."""

    host = "gallery_ftp"
    protocol = "FTP"

    def on_start(self) -> None:
        """Called by Locust."""
        self._path = f"pub/load-{uuid4().hex}"
        self._content: bytes | None = None

    def on_stop(self) -> None:
        """Called by Locust."""
        if self._client is not None and self._content is not None:
            with suppress(*FAILURES):
                self._client.delete(self._path)
        super().on_stop()

    def connect(self) -> ftplib.FTP:
        """Log in as ann."""
        return ftplib.FTP(self.host, *ANN, timeout=PATIENCE)

    def disconnect(self, client: ftplib.FTP) -> None:
        """QUIT, and close."""
        with client:
            pass

    @task
    def upload(self) -> None:
        """64 KiB at most."""
        content = random.randbytes(random.randint(1, 64 * 1024))
        with self.step("upload") as client:
            self._content = None
            client.storbinary(f"STOR {self._path}", io.BytesIO(content))
            self._content = content

    @task(3)
    def download(self) -> None:
        """What was uploaded last."""
        if self._content is None:
            return
        with self.step("download") as client:
            received: list[bytes] = []
            client.retrbinary(f"RETR {self._path}", received.append)
            expect(b"".join(received), self._content)


class MailUser(GalleryUser[tuple[smtplib.SMTP, imaplib.IMAP4]]):
    """Sends mail to bob, and as bob reads it."""

    host = "gallery_smtp"
    protocol = "mail"

    def connect(self) -> tuple[smtplib.SMTP, imaplib.IMAP4]:
        """One connection to send by, and one to read by, which has logged in."""
        reader = imaplib.IMAP4("gallery_mail", timeout=PATIENCE)
        try:
            reader.login(*BOB)
            reader.select()
            return smtplib.SMTP(self.host, timeout=PATIENCE), reader
        except BaseException:
            reader.shutdown()
            raise

    def disconnect(self, client: tuple[smtplib.SMTP, imaplib.IMAP4]) -> None:
        """QUIT, and LOGOUT."""
        with client[0], client[1]:
            pass

    @task
    def send_and_read(self) -> None:
        """By SMTP to the mailbox, and out of it by IMAP; then it is deleted."""
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
                # Among the answers may be news of what others do in this mailbox; the one with a text is a pair.
                answers = reader.uid("FETCH", number, "(BODY.PEEK[TEXT])")[1]
                texts = [answer[1] for answer in answers if isinstance(answer, tuple)]
                expect(texts, [f"Hello.\r\n.\r\n{subject}\r\n".encode()])
                reader.uid("STORE", number, "+FLAGS.SILENT", r"(\Deleted)")
                reader.uid("EXPUNGE", number)

    def _find(self, reader: imaplib.IMAP4, subject: str) -> str:
        """The UID of a message, as soon as it is there."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            reader.noop()
            if numbers := reader.uid("SEARCH", "SUBJECT", subject)[1][0]:
                return str(numbers.decode())
            time.sleep(_PAUSE)
        raise WrongReplyError(f"a message that was taken did not come within {PATIENCE:g} s")


class WebUser(GalleryUser[http.client.HTTPConnection]):
    """Reads pages over a connection that is kept."""

    host = "gallery_web"
    protocol = "HTTP"
    suffix = "kept"
    lines = "".join(f"line {number}\n" for number in range(1, 11)).encode()

    def connect(self) -> http.client.HTTPConnection:
        """Open it."""
        client = http.client.HTTPConnection(self.host, timeout=PATIENCE)
        client.connect()
        return client

    def disconnect(self, client: http.client.HTTPConnection) -> None:
        """Close it."""
        client.close()

    def get(self, path: str, status: int, content: bytes, **headers: str) -> None:
        """Ask for a page, and see that it is the one."""
        with self.step(f"GET {path}, {self.suffix}") as client:
            client.request("GET", path, headers=headers)
            response = client.getresponse()
            expect((response.status, response.read()), (status, content))

    @task(10)
    def read_file(self) -> None:
        """All of it."""
        self.get("/lines.txt", 200, self.lines)

    @task(3)
    def read_range(self) -> None:
        """A part of it."""
        self.get("/lines.txt", 206, self.lines[7:14], Range="bytes=7-13")

    @task
    def run_script(self) -> None:
        """A process for each, which costs the server more than all the rest."""
        number = random.randint(0, 9999)
        with self.step(f"CGI, {self.suffix}") as client:
            client.request("GET", f"/cgi-bin/form.py?a={number}")
            response = client.getresponse()
            expect((response.status, response.read()), (200, f"GET\na = {number}\n".encode()))


class WebChurnUser(WebUser):
    """Reads pages, each over a connection of its own."""

    suffix = "new"

    @contextmanager
    def step(self, name: str) -> Iterator[http.client.HTTPConnection]:
        """One step, after which the connection is closed."""
        with super().step(name) as client:
            yield client
        self._drop()


class XmlRpcUser(GalleryUser[xmlrpc.client.ServerProxy]):
    """Calls procedures."""

    host = "gallery_xmlrpc"
    protocol = "XML-RPC"

    def connect(self) -> xmlrpc.client.ServerProxy:
        """A first call opens the connection."""
        client = xmlrpc.client.ServerProxy(f"http://{self.host}:8000/RPC2", transport=_Transport())
        client.system.listMethods()
        return client

    def disconnect(self, client: xmlrpc.client.ServerProxy) -> None:
        """Close it."""
        client("close")()

    @task(3)
    def add(self) -> None:
        """Two numbers."""
        a, b = random.randint(0, 9999), random.randint(0, 9999)
        with self.step("add") as client:
            expect(client.add(a, b), a + b)

    @task
    def reverse(self) -> None:
        """Binary data, there and back."""
        data = random.randbytes(1024)
        with self.step("reverse") as client:
            expect(client.reverse(xmlrpc.client.Binary(data)), xmlrpc.client.Binary(data[::-1]))


class _Transport(xmlrpc.client.Transport):
    """xmlrpc.client's own has no time-out."""

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = PATIENCE
        return connection


class NewsUser(GalleryUser[nntplib.NNTP]):
    """Posts an article, and reads it and the group's overview."""

    host = "gallery_news"
    protocol = "NNTP"

    def on_start(self) -> None:
        """Called by Locust."""
        self._posted: tuple[str, str] | None = None

    def connect(self) -> nntplib.NNTP:
        """Log in as ann, and enter the group."""
        client = nntplib.NNTP(self.host, user=ANN[0], password=ANN[1], timeout=PATIENCE)
        client.group(DOMAIN)
        return client

    def disconnect(self, client: nntplib.NNTP) -> None:
        """QUIT, and close."""
        with client:
            pass

    @task
    def post(self) -> None:
        """One article."""
        subject = uuid4().hex
        message_id = f"<{subject}@load.{DOMAIN}>"
        headers = (f"From: ann@{DOMAIN}", f"Newsgroups: {DOMAIN}", f"Subject: {subject}", f"Message-ID: {message_id}")
        with self.step("post") as client:
            self._posted = None
            client.post("\r\n".join([*headers, "", subject]).encode())
            self._posted = message_id, subject

    @task(4)
    def read(self) -> None:
        """The article that was posted last."""
        if self._posted is None:
            return
        message_id, text = self._posted
        with self.step("read") as client:
            expect(client.body(message_id)[1].lines, [text.encode()])

    @task(2)
    def look_around(self) -> None:
        """The overview of the last ten articles."""
        with self.step("overview") as client:
            _, count, first, last, _ = client.group(DOMAIN)
            if count:
                numbers = [number for number, _ in client.over((max(first, last - 9), last))[1]]
                expect(all(first <= number for number in numbers) and bool(numbers), True)
