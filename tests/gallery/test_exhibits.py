"""The tour's exhibits, run in separate processes as by `lab tour`: their output, exceptions and traffic."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from urllib.request import urlopen

import pytest

from lab.tour.accounts import ACCOUNTS, WRONG_PASSWORD
from lab.tour.dialogue import MASK
from lab.tour.registry import MODULES
from lab.tour.runner import ExhibitRun
from tests.gallery.conftest import Talk

# What each prints at least, in this order: regular expressions.
PRINTS = {
    "socket": [r"own: b'Thank you", r"lab:  b'Thank you", r"b'echo, echo, echo, ' b''"],
    "socketserver": [
        r"b'WHO IS THERE\?\\n'",
        r"sequential: the second client waits until the first has gone",
        r"threading: the second client hears b'\+PONG",
    ],
    "twisted": [r"b'Thank you for connecting", r"\+PONG.*deferred"],
    "urllib": [r"readlines: 8 lines", r"progress: 71 of 71", r"True 71 bytes", r"there:  False", r"name = Ann & Bob"],
    "urllib2": [r"basic: 200", r"digest: 200", r"206 bytes 0-6/71", r"200 71 bytes.* 0$", r"lines.txt$", r"302 /lines"],
    "asynchat": [r"asynchat: .*hello.*Good-bye", r"asyncio: .*hello.*Good-bye"],
    "asyncore": [r"PONG.*old", r"PONG.*new"],
    "cgi": [r"GET: .*name = Ann & Bob", r"upload: .*a\.txt, 10 bytes, text/plain", r"cgi: .*\['1', '2'\]"],
    "cookie": [r"first: .*1", r"second: .*2", r'reads:  oat; "raisin"'],
    "cookielib": [r"first: .*1$", r"second: .*2$", r"with the file: .*3$", r"without cookies: .*1$", r"holds 0"],
    "email": [r"^Grüße", r"multipart/alternative", r"naïve name\.bin", r"½ a line", r"x00\\x01.*x07'\]"],
    "ftplib": [r"^220", r"uploaded: 1892", r"whole True", r"line 1 of a poem", r"poem\.txt", r"over TLS: .*welcome"],
    "gopherlib": [r"^menu .*Documents", r"About this server", r"found: \['finger', 'gopher'\]"],
    "httplib": [r"HEAD: .*200 OK 71", r"206 bytes 63-70/71", r"POST: .*user = ann", r"404", r"over TLS: 10"],
    "imaplib": [
        r"INBOX",
        r"unread: \[b'2 3'\]",
        r"Subject: draft 2",
        r"Flagged",
        r"gone: \[b'1'\]",
        r"2 3",
        r"TLS: OK",
    ],
    "mailbox": [r"Maildir", r"new: 2 read: S", r"3 messages", r">From here", r"MMDF: .*third", r"Babyl: .*third"],
    "mailcap": [r"text/plain  cat FILE", r"image/png .*nothing", r"shown: \['line 1'", r'trap in it: None \["Refusing'],
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
    "poplib": [r"\+OK", r"Logged in", r"there: True", r"b'One'\]", r"\[b'One', b'\.', b'Three'\]", r"gone: True"],
    "robotparser": [r"/lines.txt +may", r"/private/ +must not", r": 2$", r"sitemap", r"True$", r"False$"],
    "simplexmlrpcserver": [r"'deposit', 'pow'", r"1024", r"5 12 Pay in", r"'add', 'divide'"],
    "smtpd": [r"smtpd: .*by smtpd", r"aiosmtpd: .*by aiosmtpd", r"gallery:  accepted"],
    "smtplib": [
        r"STARTTLS",
        r"25: arrived",
        r"'nobody@gallery.test': \(5",
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
        "nobody listens": REFUSED,
        "server gone in mid-transfer": DIED,
        "no answer in time": TOO_LATE,
    },
    "socketserver": {"the address is in use": "OSError", "a host that is not ours": "OSError"},
    "twisted": {
        "unknown host": "twisted.internet.error.DNSLookupError",
        "nobody listens": "twisted.internet.error.ConnectionRefusedError",
        "server gone in mid-transfer": "twisted.internet.error.ConnectionDone",
    },
    "urllib": {
        "missing file": "urllib.error.HTTPError",
        "unknown host": URL,
        "nobody listens": URL,
        "an untrusted certificate": URL,
        "server gone in mid-transfer: read": "http.client.IncompleteRead",
        "server gone in mid-transfer: urlretrieve": "urllib.error.ContentTooShortError",
        "no answer in time": TOO_LATE,
    },
    "urllib2": {
        "no password": "urllib.error.HTTPError",
        "wrong password (Basic)": "urllib.error.HTTPError",
        "wrong password (Digest)": "urllib.error.HTTPError",
        "missing file": "urllib.error.HTTPError",
        "unknown host": URL,
        "an untrusted certificate": URL,
        "server gone before it answered": "http.client.RemoteDisconnected",
        "no answer in time": TOO_LATE,
    },
    "asynchat": {
        "nobody listens": REFUSED,
        "nobody listens, asyncio": REFUSED,
        "server gone in mid-line, asyncio": "asyncio.exceptions.IncompleteReadError",
    },
    "asyncore": {
        "unknown host": NO_HOST,
        "unknown host, asyncio": NO_HOST,
        "nobody listens": REFUSED,
        "nobody listens, asyncio": REFUSED,
    },
    "cgi": {
        "more than the program takes": "urllib.error.HTTPError",
        "a form of parts without a boundary": "ValueError",
        "a body beyond cgi.maxlen": "ValueError",
    },
    "cookie": {
        "a name that cannot be one": "http.cookies.CookieError",
        "an attribute as a name": "http.cookies.CookieError",
        "an attribute that there is not": "http.cookies.CookieError",
    },
    "cookielib": {
        "a file that is no jar": "http.cookiejar.LoadError",
        "no such file": "FileNotFoundError",
        "unknown host": URL,
    },
    "email": {
        "a second subject": "ValueError",
        "a line smuggled into a header": "ValueError",
        "a letter that the charset has not": "UnicodeEncodeError",
        "a message that is torn": "email.errors.MissingHeaderBodySeparatorDefect",
    },
    "ftplib": {
        "wrong password": "ftplib.error_perm",
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "missing file": "ftplib.error_perm",
        "a folder that is not there": "ftplib.error_perm",
        "missing file, by urllib": URL,
        "an untrusted certificate": UNTRUSTED,
        "server gone in mid-transfer": DIED,
        "no answer in time": TOO_LATE,
    },
    "gopherlib": {
        "no such selector": "LookupError",
        "nothing was found": "LookupError",
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "server gone in mid-transfer": DIED,
        "no answer in time": TOO_LATE,
    },
    "httplib": {
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "an untrusted certificate": UNTRUSTED,
        "the next request too early": "http.client.CannotSendRequest",
        "server gone before it answered": "http.client.RemoteDisconnected",
        "server gone in mid-transfer": "http.client.IncompleteRead",
        "not HTTP at all": "http.client.BadStatusLine",
        "no answer in time": TOO_LATE,
    },
    "imaplib": {
        "wrong password": "imaplib.IMAP4.error",
        "no folder was selected": "imaplib.IMAP4.error",
        "a search that is none": "imaplib.IMAP4.error",
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "an untrusted certificate": UNTRUSTED,
        "server gone in mid-transfer": "imaplib.IMAP4.abort",
        "no answer in time": TOO_LATE,
    },
    "mailbox": {
        "no such mailbox": "mailbox.NoSuchMailboxError",
        "no such message": "KeyError",
        "locked by somebody else": "mailbox.ExternalClashError",
        "no such folder": "mailbox.NoSuchMailboxError",
    },
    "mailcap": {"no table of capabilities": "TypeError", "a program that is not there": "FileNotFoundError"},
    "mhlib": {
        "no such folder": "mailbox.NoSuchMailboxError",
        "no such message": "KeyError",
        "a folder that is not empty": "mailbox.NotEmptyError",
    },
    "nntplib": {
        "wrong password": "nntplib.NNTPTemporaryError",
        "wrong password, pynntp": "nntp.nntp.NNTPTemporaryError",
        "no such group": "nntplib.NNTPTemporaryError",
        "no such article": "nntplib.NNTPTemporaryError",
        "no such number": "nntplib.NNTPTemporaryError",
        "an article without a group": "nntplib.NNTPTemporaryError",
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "server gone in mid-transfer": DIED,
        "no answer in time": TOO_LATE,
    },
    "poplib": {
        "wrong password": "poplib.error_proto",
        "no such message": "poplib.error_proto",
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "an untrusted certificate": UNTRUSTED,
        "server gone in mid-transfer": "poplib.error_proto",
        "no answer in time": TOO_LATE,
    },
    "robotparser": {"unknown host": URL, "nobody listens": URL, "an untrusted certificate": URL},
    "simplexmlrpcserver": {
        "a method that is private": "xmlrpc.client.Fault",
        "an exception in the procedure": "xmlrpc.client.Fault",
        "another path": "xmlrpc.client.ProtocolError",
        "its address is in use": "OSError",
    },
    "smtpd": {
        "smtpd, refused when it has all come": "smtplib.SMTPDataError",
        "smtpd, too large": "smtplib.SMTPSenderRefused",
        "aiosmtpd, refused recipient": "smtplib.SMTPRecipientsRefused",
        "aiosmtpd, too large": "smtplib.SMTPSenderRefused",
        "its address is in use": "OSError",
    },
    "smtplib": {
        "wrong password": "smtplib.SMTPAuthenticationError",
        "a login without TLS": "smtplib.SMTPNotSupportedError",
        "refused recipient": "smtplib.SMTPRecipientsRefused",
        "no relay": "smtplib.SMTPRecipientsRefused",
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "an untrusted certificate": UNTRUSTED,
        "server gone in mid-transfer": "smtplib.SMTPServerDisconnected",
        "no answer in time": "smtplib.SMTPServerDisconnected",
    },
    "telnetlib": {
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "nobody listens, telnetlib3": REFUSED,
        "server gone in mid-dialogue": DIED,
        "no answer in time": TOO_LATE,
    },
    "urlparse": {
        "a port that is none": "ValueError",
        "a port that is too high": "ValueError",
        "half an IPv6 address": "ValueError",
        "a query that must be whole": "ValueError",
        "a query of too many fields": "ValueError",
    },
    "xmlrpclib": {
        "no such procedure": "xmlrpc.client.Fault",
        "an argument too few": "xmlrpc.client.Fault",
        "an integer beyond 32 bits": "OverflowError",
        "None, which XML-RPC has not": "TypeError",
        "the wrong path": "xmlrpc.client.ProtocolError",
        "unknown host": NO_HOST,
        "nobody listens": REFUSED,
        "server gone in mid-transfer": "xml.parsers.expat.ExpatError",
        "no answer in time": TOO_LATE,
    },
}

# A secret in any of these spellings is one that was not masked.
SECRETS = [each.password for each in ACCOUNTS] + [WRONG_PASSWORD]


def see(module: str) -> ExhibitRun:
    """Run an exhibit as the tour does."""
    command = [sys.executable, "-m", "lab.tour.runner", module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    try:
        return ExhibitRun.from_json(json.loads(done.stdout))
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
    text = json.dumps(run.as_json())
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
    run = ExhibitRun.from_json(json.loads(done.stdout))
    assert run.error is not None
    assert run.error.endswith("OSError: no way\n")
    assert not run.held
