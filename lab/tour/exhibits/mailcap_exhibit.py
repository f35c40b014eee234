"""Which program shows a file of which kind: the table that mail readers have asked since 1991 (RFC 1524).

Python 2: mailcap
Python 3: mailcap
Gone since: 3.13
Use instead: mimetypes for the kind; xdg-open, or a table of one's own, for the program
Servers: gallery_web
"""

import mailcap
import mimetypes
import os
import shlex
import subprocess
import tempfile
import warnings
from pathlib import Path
from urllib.request import urlopen

from lab.tour.faulty import Failures

TABLE = """\
# type; command; and what goes with it
text/plain; cat %s; copiousoutput
text/*; wc -l %s; description=anything of letters
image/png; cat %s; test=test -n "$DISPLAY"
"""


def visit() -> None:
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "mailcap"
        table.write_text(TABLE)
        os.environ["MAILCAPS"] = str(table)
        capabilities = mailcap.getcaps()
        for kind in ("text/plain", "text/html", "image/png", "audio/ogg"):
            command, entry = mailcap.findmatch(capabilities, kind, filename="FILE")
            print(f"{kind:11} {command or 'nothing to show it with'}", (entry and entry.get("description", "")) or "")

        # The kind comes with the file, as in a mail; the command is found by it, and shows the file.
        with urlopen("http://gallery_web/lines.txt", timeout=10) as answer:
            kind = answer.headers.get_content_type()
            file = Path(directory) / "lines.txt"
            file.write_bytes(answer.read())
        command, _ = mailcap.findmatch(capabilities, kind, filename=str(file))
        shown = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
        print("shown:", shown.stdout.splitlines()[:2], "...")

        # Why it was dropped: the name of a file becomes part of a shell's command line. The last versions refuse.
        with warnings.catch_warnings(record=True) as said:
            command, _ = mailcap.findmatch(capabilities, "text/plain", filename="x; rm -r .")
        print("a name with a trap in it:", command, [str(warning.message) for warning in said])
    print("its successor guesses by name:", mimetypes.guess_type("lines.txt"))


def failures() -> Failures:
    # It never raises: what it does not know is None, what is wrong in a table is passed over.
    yield "no table of capabilities", lambda: mailcap.findmatch(None, "text/plain")
    yield "a program that is not there", lambda: subprocess.run(["xv", "FILE"])
