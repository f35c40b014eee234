"""The server's side of a form: reads fields and uploaded files from a request's body and the environment.

Python 2: cgi
Python 3: cgi
Gone since: 3.13
Use instead: a framework's request; urllib.parse and email in a CGI program without one. Debian's legacy-cgi runs here
Servers: gallery_web
"""

import cgi
import io
from urllib.parse import parse_qs, urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

from lab.tour.faulty import Failures

FORM = "http://gallery_web/cgi-bin/form.py"


def build_form(name: str, upload: bytes) -> tuple[bytes, str]:
    """Return a form with a field and a file, as a browser sends it, and its Content-Type."""
    boundary = uuid4().hex  # must not occur in any part
    field = f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'
    disposition = 'Content-Disposition: form-data; name="file"; filename="a.txt"'
    file = f"--{boundary}\r\n{disposition}\r\nContent-Type: text/plain\r\n\r\n".encode() + upload
    body = field.encode() + file + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def ask(request: Request | str) -> str:
    with urlopen(request, timeout=10) as reply:
        return " | ".join(reply.read().decode().split("\n")).strip(" |")


def parse(body: bytes, **environ: str) -> cgi.FieldStorage:
    """Parse a body as a CGI program does; `environ` is what its server would set."""
    headers = {"content-type": environ["CONTENT_TYPE"], "content-length": str(len(body))}
    return cgi.FieldStorage(io.BytesIO(body), headers, environ={"REQUEST_METHOD": "POST", **environ})


def visit() -> None:
    query = urlencode({"name": "Ann & Bob", "choice": ["1", "2"]}, doseq=True)
    print("GET:   ", ask(f"{FORM}?{query}"))
    print("POST:  ", ask(Request(FORM, query.encode())))
    body, content_type = build_form("Ann", b"an upload\n")
    print("upload:", ask(Request(FORM, body, {"Content-Type": content_type})))

    form = parse(query.encode(), CONTENT_TYPE="application/x-www-form-urlencoded")
    print("cgi:      ", form.getfirst("name"), form.getlist("choice"), form.getvalue("none", "nothing"))
    print("successor:", parse_qs(query))


def failures() -> Failures:
    yield "body larger than the program accepts", lambda: urlopen(FORM, b"x=" + b"y" * 100_000)
    kind = "multipart/form-data"
    yield "multipart form without a boundary", lambda: parse(b"", CONTENT_TYPE=kind)
    cgi.maxlen = 10
    yield "body larger than cgi.maxlen", lambda: parse(b"x" * 11, CONTENT_TYPE="application/x-www-form-urlencoded")
    cgi.maxlen = 0
