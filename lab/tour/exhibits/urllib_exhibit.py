"""Remote files, opened and read by their URL like local files.

Python 2: urllib
Python 3: urllib.request, urllib.parse, urllib.error
Gone since: -
Use instead: still urlopen for a simple GET; requests or httpx for more. urlretrieve is a legacy interface
Servers: gallery_web
"""

import tempfile
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlcleanup, urlopen, urlretrieve

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

LINES = "http://gallery_web/lines.txt"


def show_progress(block: int, size: int, total: int) -> None:
    """Print the progress of urlretrieve: it calls this at the start and after each block, with total -1 if unknown."""
    print(f"  progress: {min(block * size, total)} of {total} bytes")


def visit() -> None:
    with urlopen(LINES, timeout=10) as file:
        print(file.status, file.headers["Content-Type"], file.geturl())
        print("read:     ", file.read(7))
        print("readline: ", file.readline())
        print("readlines:", len(file.readlines()), "more lines")
    with urlopen(LINES, timeout=10) as file:
        print("iterated: ", [line.split()[1] for line in file])

    with tempfile.TemporaryDirectory() as directory:
        name, headers = urlretrieve(LINES, Path(directory) / "lines.txt", show_progress)
        print("retrieved to a given name:", Path(name).read_bytes().count(b"\n"), "lines")
    name, headers = urlretrieve(LINES)
    print("retrieved to a temporary file:", Path(name).exists(), headers["Content-Length"], "bytes")
    urlcleanup()
    print("exists after urlcleanup:", Path(name).exists())

    form = urlencode({"name": "Ann & Bob", "choice": [1, 2]}, doseq=True)
    print("as a query:", form)
    with urlopen("http://gallery_web/cgi-bin/form.py", form.encode(), timeout=10) as file:  # data makes it a POST
        print(file.read().decode().strip())


def failures() -> Failures:
    yield "missing file", lambda: urlopen("http://gallery_web/missing")
    yield "unknown host", lambda: urlopen(f"http://{UNKNOWN_HOST}/")
    yield "closed port", lambda: urlopen("http://gallery_web:9999/")
    yield "untrusted certificate", lambda: urlopen("https://gallery_web/")
    with breaking_off(b"", b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it") as port:
        yield "server closes in mid-transfer: read", lambda: urlopen(f"http://127.0.0.1:{port}/").read()
    with breaking_off(b"", b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it") as port:
        yield "server closes in mid-transfer: urlretrieve", lambda: urlretrieve(f"http://127.0.0.1:{port}/")
    with silent() as port:
        yield "no reply before the timeout", lambda: urlopen(f"http://127.0.0.1:{port}/", timeout=SHORT)
    urlcleanup()  # deletes the file of the failed urlretrieve
