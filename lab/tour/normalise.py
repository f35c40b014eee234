"""Replace everything in a recording that differs from run to run, so that recordings differ only if behaviour does.

Only recordings are normalised; `lab tour` shows the real data. The order of messages may still differ: a telnet server
negotiates while it greets, and a web server sends a CGI program's output in one piece or in two.
"""

import re
from dataclasses import replace

from lab.tour.runner import ExhibitRun

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_CLOCK = r"\d\d:\d\d:\d\d"

# In this order: a pattern comes before those that match parts of it.
_RULES = tuple(
    (re.compile(pattern, re.MULTILINE), what)
    for pattern, what in (
        # RFC 5322 and HTTP; ctime; IMAP; ISO as in XML-RPC; FTP's facts and ls -l.
        (
            rf"(?:(?:{_DAYS}), )?\d{{1,2}} (?:{_MONTHS}) \d{{4}} {_CLOCK}(?: (?:GMT|[-+]\d{{4}}))?(?: \(UTC\))?",
            "<date>",
        ),
        (rf"\d{{1,2}}-(?:{_MONTHS})-\d{{4}} {_CLOCK} [-+]\d{{4}}", "<date>"),
        (rf"\d{{8}}T{_CLOCK}", "<date>"),
        (rf"\d{{4}}-\d\d-\d\d[ T]{_CLOCK}(?:Z| UTC)?", "<date>"),
        (r"(?<=modify=)\d{14}", "<date>"),
        (rf"\b(?:{_MONTHS}) [ \d]\d (?:\d\d:\d\d|[ \d]\d{{4}})\b", "<date>"),
        # A challenge of CRAM-MD5, the base64 of <, and its answer; APOP's.
        (r"(?<=\+ )PD[A-Za-z0-9+/]{20,}={0,2}", "<challenge>"),
        (r"(?<=APOP bob )[0-9a-f]{32}", "<answer>"),
        (r'(?<=nonce=")[^"]+|(?<=cnonce=")[^"]+|(?<=response=")[^"]+', "<hex>"),
        # Message-IDs and other names in <> that hold a number before the @; APOP's greeting is one of them.
        (r"<[^<>@\s]*\d[^<>@\s]*@[^<>\s]+>", "<message-id>"),
        (r"(?<=Message-ID: )\S+@\S+", "<message-id>"),
        # Addresses, and the ports that the kernel or an FTP server has chosen.
        (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
        (r"\(\d{1,3}(?:,\d{1,3}){5}\)", "(<address>,<port>)"),
        (r"(?<=PORT )\d{1,3}(?:,\d{1,3}){5}", "<address>,<port>"),
        (r"(?<=gallery_ftp:)30\d{3}", "<port>"),
        (r"\b(?:10|172|192)\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", "<address>"),
        # A container's name, a boundary of MIME or of a form, an ETag, a temporary file, ids of a session.
        (r"\b[0-9a-f]{12}\b", "<host>"),
        (r"=={10,}\d+==", "<boundary>"),
        (r"\b[0-9a-f]{32}\b", "<hex>"),
        (r'(?<=ETag: )"?\d+"?', "<etag>"),
        (r"(?<=/)tmp\w{8}\b", "<temporary>"),
        (r"(?<=250 2\.0\.0 )[0-9a-f]{8}\b", "<id>"),
        (r"(?<=\bid )[\w+/]{8,}(?::T\d+)?|(?<=> )[\w+/]{22}(?::T\d+)?(?= Saved)", "<id>"),
        (r'(?<=logging-data=")\d+', "<number>"),
        (r"\b[\w-]+-shell-1\.[\w-]+_lab\b", "<client>"),
        # The answer to CRAM-MD5 is the base64 of the user, a blank and 32 digits.
        (r"^YW5uI[A-Za-z0-9+/]{40,}={0,2}$", "<answer>"),
        # The number of a client in the chat room depends on how often the server's health was checked.
        (r"(?<=You are )\d+|\b\d+(?=: hello\b)", "<number>"),
        (r"(?<=UIDVALIDITY )\d+|(?<=UIDNEXT )\d+|(?<=HIGHESTMODSEQ )\d+|(?<=APPENDUID )\d+", "<number>"),
        (r"\(\d\.\d{3} \+ \d\.\d{3}(?: \+ \d\.\d{3})? secs\)", "(<seconds>)"),
        # The size of a message, whose headers contain addresses of different lengths.
        (r"(?<=\+OK )\d+(?= octets)|(?<=\+OK \d )\d+|(?<=RFC822 \{)\d+", "<bytes>"),
        # imaplib's tags: four random letters and a number.
        (r"\b[A-P]{4}(?=\d+\b)", "TAG"),
    )
)


def normalise_text(text: str) -> str:
    """Replace everything in a text that differs from run to run."""
    for pattern, what in _RULES:
        text = pattern.sub(what, text)
    return text


def normalise(run: ExhibitRun) -> ExhibitRun:
    """Replace everything in a run that differs from run to run."""
    return replace(
        run,
        output=normalise_text(run.output),
        messages=tuple(
            replace(message, peer=normalise_text(message.peer), text=normalise_text(message.text))
            for message in run.messages
        ),
        failures=tuple(
            replace(failure, message=failure.message and normalise_text(failure.message)) for failure in run.failures
        ),
    )
