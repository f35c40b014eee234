"""The tour's exhibits, run in separate processes as by `lab tour`: their output, exceptions and traffic."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from urllib.request import urlopen

import pytest

from lab.base.messages import build
from lab.tour.accounts import ACCOUNTS, WRONG_PASSWORD
from lab.tour.dialogue import MASK
from lab.tour.registry import MODULES
from lab.tour.runner import ExhibitRun
from tests.gallery.conftest import Talk

# What each prints at least, in this order: regular expressions.
PRINTS = {
    "socket": [r"its own: b'Thank you", r"lab:  b'Thank you", r"b'echo, echo, echo, ' b''"],
    "socketserver": [
        r"b'IS IT ON\?\\n'",
        r"sequential: the second client waits until the first disconnects",
        r"threading: the second client gets b'\+PONG",
    ],
    "twisted": [r"b'Thank you for connecting", r"\+PONG.*deferred"],
    "urllib": [
        r"readlines: 8 more lines",
        r"progress: 71 of 71",
        r"True 71 bytes",
        r"cleanup: False",
        r"name = Ann & Bob",
    ],
    "urllib2": [r"basic: 200", r"digest: 200", r"206 bytes 0-6/71", r"200 71 bytes.* 0$", r"lines.txt$", r"302 /lines"],
    "asynchat": [r"asynchat: .*hello.*Good-bye", r"asyncio: .*hello.*Good-bye"],
    "asyncore": [r"PONG.*old", r"PONG.*new"],
    "cgi": [r"GET: .*name = Ann & Bob", r"upload: .*a\.txt, 10 bytes, text/plain", r"cgi: .*\['1', '2'\]"],
    "cookie": [r"first: .*1", r"second: .*2", r'reads:  oat; "raisin"'],
    "cookielib": [r"first: .*1$", r"second: .*2$", r"with the file: .*3$", r"cookies: .*1$", r"accepts none: 0"],
    "email": [r"^Grüße", r"multipart/alternative", r"naïve name\.bin", r"½ a line", r"x00\\x01.*x07'\]"],
    "ftplib": [r"^220", r"loaded: 1892", r"complete: True", r"line 1 of a poem", r"poem\.txt", r"over TLS: .*welcome"],
    "gopherlib": [r"^menu .*Documents", r"About this server", r"found: \['finger', 'gopher'\]"],
    "httplib": [r"HEAD: .*200 OK 71", r"206 bytes 63-70/71", r"POST: .*user = ann", r"404", r"over TLS: 10"],
    "imaplib": [
        r"INBOX",
        r"unread: \[b'2 3'\]",
        r"Subject: draft 2",
        r"Flagged",
        r"deleted: \[b'1'\]",
        r"permanent numbers: .*2 3",
        r"TLS: OK",
    ],
    "mailbox": [r"Maildir", r"new: 2 read: S", r"3 messages", r">From here on", r"MMDF: .*third", r"Babyl: .*third"],
    "mailcap": [r"text/plain  cat FILE", r"png .*no program", r"shown: \['line 1'", r'command in it: None \["Refusing'],
    "mhlib": [r"\['inbox'\]", r"unseen: 2-4", r"'unseen', 'important'\] message 3", r"\[1, 2, 3\]", r"archived: .*1"],
    "nntplib": [
        r"200 .*READER",
        r"articles: True",
        r"a question$",
        r"an answer$",
        r"b'A line\.', b'\.hidden\?",
        r"True.*True",
        r"pynntp: True",
    ],
    "poplib": [r"\+OK", r"Logged in", r"waiting: True", r"b'One'\]", r"\[b'One', b'\.', b'Three'\]", r"^deleted: True"],
    "robotparser": [r"/lines.txt +may", r"/private/ +must not", r": 2$", r"sitemap", r"True$", r"False$"],
    "simplexmlrpcserver": [r"'deposit', 'pow'", r"1024", r"5 12 Pay in", r"'add', 'divide'"],
    "smtpd": [r"smtpd: .*by smtpd", r"aiosmtpd: .*by aiosmtpd", r"gallery:  accepted"],
    "smtplib": [
        r"STARTTLS",
        r"25: arrived",
        r"'unknown@gallery.test': \(5",
        r"on: arrived",
        r"S: arrived",
        r"P: arrived",
    ],
    "telnetlib": [r"^Welcome", r"WILL 3", r"echo: 0 b'hello'", r"no such choice", r"Good-bye", r"3: b'hello again'"],
    "urlparse": [r"gallery_web 8080 for ann", r"n=3&n=4#end", r"grün$", r"docs/a/c\.html", r"gallery_web/redirect$"],
    "xmlrpclib": [r"'system.multicall'", r"sum", r"5$", r"fault:   100", r"3$", r"100$", r"b'cba'", r"True", r"T02:30"],
}

DIED, REFUSED, UNTRUSTED = "EOFError", "ConnectionRefusedError", "ssl.SSLCertVerificationError"
NO_HOST, TOO_LATE, URL = "socket.gaierror", "TimeoutError", "urllib.error.URLError"

# What each raises when.
RAISES = {
    "socket": {
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "server closes in mid-transfer": DIED,
        "no reply before the timeout": TOO_LATE,
    },
    "socketserver": {"address in use": "OSError", "address of another machine": "OSError"},
    "twisted": {
        "unknown host": "twisted.internet.error.DNSLookupError",
        "closed port": "twisted.internet.error.ConnectionRefusedError",
        "server closes in mid-transfer": "twisted.internet.error.ConnectionDone",
    },
    "urllib": {
        "missing file": "urllib.error.HTTPError",
        "unknown host": URL,
        "closed port": URL,
        "untrusted certificate": URL,
        "server closes in mid-transfer: read": "http.client.IncompleteRead",
        "server closes in mid-transfer: urlretrieve": "urllib.error.ContentTooShortError",
        "no reply before the timeout": TOO_LATE,
    },
    "urllib2": {
        "no password": "urllib.error.HTTPError",
        "wrong password (Basic)": "urllib.error.HTTPError",
        "wrong password (Digest)": "urllib.error.HTTPError",
        "missing file": "urllib.error.HTTPError",
        "unknown host": URL,
        "untrusted certificate": URL,
        "server closes without a reply": "http.client.RemoteDisconnected",
        "no reply before the timeout": TOO_LATE,
    },
    "asynchat": {
        "closed port": REFUSED,
        "closed port, asyncio": REFUSED,
        "server closes in mid-line, asyncio": "asyncio.exceptions.IncompleteReadError",
    },
    "asyncore": {
        "unknown host": NO_HOST,
        "unknown host, asyncio": NO_HOST,
        "closed port": REFUSED,
        "closed port, asyncio": REFUSED,
    },
    "cgi": {
        "body larger than the program accepts": "urllib.error.HTTPError",
        "multipart form without a boundary": "ValueError",
        "body larger than cgi.maxlen": "ValueError",
    },
    "cookie": {
        "invalid name": "http.cookies.CookieError",
        "attribute as a name": "http.cookies.CookieError",
        "unknown attribute": "http.cookies.CookieError",
    },
    "cookielib": {
        "file in another format": "http.cookiejar.LoadError",
        "missing file": "FileNotFoundError",
        "unknown host": URL,
    },
    "email": {
        "second subject": "ValueError",
        "line break in a header": "ValueError",
        "character that the charset lacks": "UnicodeEncodeError",
        "unfinished headers": "email.errors.MissingHeaderBodySeparatorDefect",
    },
    "ftplib": {
        "wrong password": "ftplib.error_perm",
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "missing file": "ftplib.error_perm",
        "missing folder": "ftplib.error_perm",
        "missing file, urllib": URL,
        "untrusted certificate": UNTRUSTED,
        "server closes in mid-transfer": DIED,
        "no reply before the timeout": TOO_LATE,
    },
    "gopherlib": {
        "unknown selector": "LookupError",
        "search without a result": "LookupError",
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "server closes in mid-transfer": DIED,
        "no reply before the timeout": TOO_LATE,
    },
    "httplib": {
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "untrusted certificate": UNTRUSTED,
        "second request before the first reply was read": "http.client.CannotSendRequest",
        "server closes without a reply": "http.client.RemoteDisconnected",
        "server closes in mid-transfer": "http.client.IncompleteRead",
        "server of another protocol": "http.client.BadStatusLine",
        "no reply before the timeout": TOO_LATE,
    },
    "imaplib": {
        "wrong password": "imaplib.IMAP4.error",
        "search without a selected folder": "imaplib.IMAP4.error",
        "invalid search": "imaplib.IMAP4.error",
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "untrusted certificate": UNTRUSTED,
        "server closes in mid-transfer": "imaplib.IMAP4.abort",
        "no reply before the timeout": TOO_LATE,
    },
    "mailbox": {
        "missing mailbox": "mailbox.NoSuchMailboxError",
        "missing message": "KeyError",
        "mailbox with a lock": "mailbox.ExternalClashError",
        "missing folder": "mailbox.NoSuchMailboxError",
    },
    "mailcap": {"None as the table": "TypeError", "missing program": "FileNotFoundError"},
    "mhlib": {
        "missing folder": "mailbox.NoSuchMailboxError",
        "missing message": "KeyError",
        "removal of a folder that is not empty": "mailbox.NotEmptyError",
    },
    "nntplib": {
        "wrong password": "nntplib.NNTPTemporaryError",
        "wrong password, pynntp": "nntp.nntp.NNTPTemporaryError",
        "unknown group": "nntplib.NNTPTemporaryError",
        "missing article": "nntplib.NNTPTemporaryError",
        "unknown number": "nntplib.NNTPTemporaryError",
        "article without a group": "nntplib.NNTPTemporaryError",
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "server closes in mid-transfer": DIED,
        "no reply before the timeout": TOO_LATE,
    },
    "poplib": {
        "wrong password": "poplib.error_proto",
        "missing message": "poplib.error_proto",
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "untrusted certificate": UNTRUSTED,
        "server closes in mid-transfer": "poplib.error_proto",
        "no reply before the timeout": TOO_LATE,
    },
    "robotparser": {"unknown host": URL, "closed port": URL, "untrusted certificate": URL},
    "simplexmlrpcserver": {
        "private method": "xmlrpc.client.Fault",
        "exception in the procedure": "xmlrpc.client.Fault",
        "unknown path": "xmlrpc.client.ProtocolError",
        "address in use": "OSError",
    },
    "smtpd": {
        "smtpd, recipient refused after the message": "smtplib.SMTPDataError",
        "smtpd, message too large": "smtplib.SMTPSenderRefused",
        "aiosmtpd, recipient refused before the message": "smtplib.SMTPRecipientsRefused",
        "aiosmtpd, message too large": "smtplib.SMTPSenderRefused",
        "address in use": "OSError",
    },
    "smtplib": {
        "wrong password": "smtplib.SMTPAuthenticationError",
        "login without TLS": "smtplib.SMTPNotSupportedError",
        "refused recipient": "smtplib.SMTPRecipientsRefused",
        "recipient at another site": "smtplib.SMTPRecipientsRefused",
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "untrusted certificate": UNTRUSTED,
        "server closes in mid-transfer": "smtplib.SMTPServerDisconnected",
        "no reply before the timeout": "smtplib.SMTPServerDisconnected",
    },
    "telnetlib": {
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "closed port, telnetlib3": REFUSED,
        "server closes in mid-dialogue": DIED,
        "no reply before the timeout": TOO_LATE,
    },
    "urlparse": {
        "port that is not a number": "ValueError",
        "port out of range": "ValueError",
        "incomplete IPv6 address": "ValueError",
        "field without a value, in strict mode": "ValueError",
        "too many fields": "ValueError",
    },
    "xmlrpclib": {
        "unknown procedure": "xmlrpc.client.Fault",
        "missing argument": "xmlrpc.client.Fault",
        "integer beyond 32 bits": "OverflowError",
        "None, which XML-RPC lacks": "TypeError",
        "unknown path": "xmlrpc.client.ProtocolError",
        "unknown host": NO_HOST,
        "closed port": REFUSED,
        "server closes in mid-transfer": "xml.parsers.expat.ExpatError",
        "no reply before the timeout": TOO_LATE,
    },
}

# A secret in any of these spellings is one that was not masked.
SECRETS = [each.password for each in ACCOUNTS] + [WRONG_PASSWORD]


def see(module: str) -> ExhibitRun:
    """Run an exhibit as the tour does."""
    command = [sys.executable, "-m", "lab.tour.runner", module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    try:
        return build(ExhibitRun, json.loads(done.stdout))
    except ValueError:
        pytest.fail(f"exit code {done.returncode}: {done.stderr[-2000:]}")


def said(run: ExhibitRun, side: str, *, tls: bool | None = None) -> str:
    return "".join(each.text for each in run.messages if each.side == side and tls in (None, each.tls))


@pytest.mark.parametrize("module", MODULES)
def test_exhibit_prints_and_raises_as_documented(module: str, other_side: Callable[[ExhibitRun], None]) -> None:
    run = see(module)
    assert run.error is None
    lines = iter(run.output.splitlines())
    for pattern in PRINTS[module]:
        assert any(re.search(pattern, line) for line in lines), f"{pattern} is not in\n{run.output}"
    assert {each.what: each.raised for each in run.failures} == RAISES[module]
    text = json.dumps(asdict(run))
    for secret in SECRETS:
        for spelling in (secret, base64.b64encode(secret.encode()).decode()):
            assert spelling not in text
    other_side(run)


@pytest.fixture
def other_side(request: pytest.FixtureRequest, talk: Callable[[str, int], Talk]) -> Callable[[ExhibitRun], None]:
    """Check the exhibit's effect by another protocol, or by its traffic."""
    module = request.node.callspec.params["module"]
    checks = {
        "ftplib": check_upload,
        "httplib": check_one_connection,
        "imaplib": check_secure_login,
        "nntplib": lambda run: check_articles(run, talk("gallery_news", 119)),
        "poplib": check_fetched,
        "smtplib": check_delivered,
        "telnetlib": check_options,
        "urllib2": check_basic,
    }
    return checks.get(module, lambda run: None)


def check_upload(run: ExhibitRun) -> None:
    """A file uploaded by FTP is readable by HTTP, and the traffic shows that only its rest was requested."""
    with urlopen("http://gallery_web/pub/poem.txt", timeout=20) as answer:
        poem = answer.read()
    assert poem.splitlines() == [b"line %d of a poem" % number for number in range(1, 101)]
    commands = said(run, "client")
    assert "REST 500\n" in commands
    assert f"USER ann\nPASS {MASK}\n" in commands
    # Of the active transfer the server opened the connection, so it is none of the client's; the passive ones are.
    assert {each.peer for each in run.messages} - {"gallery_ftp:21"}
    assert "PROT P\n" in said(run, "client", tls=True)


def check_one_connection(run: ExhibitRun) -> None:
    """Four requests on one connection, and one on another over TLS."""
    requests = [each for each in run.messages if re.match(r"(GET|HEAD|POST) ", each.text)]
    assert [each.connection for each in requests] == [1, 1, 1, 1, 2]
    assert [each.tls for each in requests] == [False] * 4 + [True]


def check_secure_login(run: ExhibitRun) -> None:
    assert "STARTTLS" in said(run, "client", tls=False)
    assert " LOGIN " not in said(run, "client", tls=False)
    assert f" LOGIN ann {MASK}\n" in said(run, "client", tls=True)


def check_articles(run: ExhibitRun, news: Talk) -> None:
    """A posted article is readable with raw commands."""
    assert news.hear().startswith("200 ")
    assert news.ask("AUTHINFO USER ann").startswith("381 ")
    assert news.ask("AUTHINFO PASS anns-secret").startswith("281 ")
    last = int(news.ask("GROUP gallery.test").split()[3])
    assert news.ask(f"HDR Subject 1-{last}").startswith("225 ")
    subjects = [line.partition(" ")[2] for line in news.hear_until(".")]
    assert {"Which model?", "Re: Which model?"} <= set(subjects)
    assert f"authinfo pass {MASK}" in said(run, "client")


def check_fetched(run: ExhibitRun) -> None:
    assert "APOP bob " in said(run, "client", tls=True)
    assert f"PASS {MASK}\n" in said(run, "client", tls=True)
    # The line that is a dot has two of them on the wire.
    assert "One\n..\nThree\n" in said(run, "server", tls=True)


def check_delivered(run: ExhibitRun) -> None:
    """The exhibit waits for each message in a mailbox; the traffic shows how each was sent."""
    assert "AUTH PLAIN " + MASK in said(run, "client", tls=True)
    assert "AUTH" not in said(run, "client", tls=False)
    assert {"gallery_smtp:25", "gallery_smtp:587", "gallery_smtp:465", "gallery_mail:24", "gallery_mail:143"} == {
        each.peer for each in run.messages
    }


def check_options(run: ExhibitRun) -> None:
    """IAC WONT and IAC DONT, which a terminal does not show."""
    assert {r"\xff\xfc", r"\xff\xfe"} <= set(re.findall(r"\\xff\\xf[ce]", said(run, "client")))


def check_basic(run: ExhibitRun) -> None:
    assert f"Authorization: Basic {MASK}" in said(run, "client")
    assert 'Authorization: Digest username="ann"' in said(run, "client")


def test_every_exhibit_has_expectations() -> None:
    assert list(PRINTS) == list(RAISES) == list(MODULES)


def test_failing_exhibit_shows_its_exception() -> None:
    script = "import socket; socket.create_connection = lambda *_, **__: (_ for _ in ()).throw(OSError('no way'))"
    command = [
        sys.executable,
        "-c",
        f"{script}; import runpy, sys; sys.argv = ['stage', 'gopherlib']; "
        "runpy.run_module('lab.tour.runner', run_name='__main__')",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    run = build(ExhibitRun, json.loads(done.stdout))
    assert run.error is not None
    assert run.error.endswith("OSError: no way\n")
    assert not run.held
