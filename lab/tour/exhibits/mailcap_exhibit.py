"""The table that tells mail readers which program shows which type of file (RFC 1524).

Python 2: mailcap
Python 3: mailcap
Gone since: 3.13
Use instead: mimetypes for the type; xdg-open, or your own table, for the program
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
# type; command; options
text/plain; cat %s; copiousoutput
text/*; wc -l %s; description=any text
image/png; cat %s; test=test -n "$DISPLAY"
"""


def visit() -> None:
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "mailcap"
        table.write_text(TABLE)
        os.environ["MAILCAPS"] = str(table)
        capabilities = mailcap.getcaps()
        for media_type in ("text/plain", "text/html", "image/png", "audio/ogg"):
            command, entry = mailcap.findmatch(capabilities, media_type, filename="FILE")
            print(f"{media_type:11} {command or 'no program'}", (entry and entry.get("description", "")) or "")

        # The type arrives with the file, as in a mail. It selects the command that shows the file.
        with urlopen("http://gallery_web/lines.txt", timeout=10) as reply:
            media_type = reply.headers.get_content_type()
            file = Path(directory) / "lines.txt"
            file.write_bytes(reply.read())
        command, _ = mailcap.findmatch(capabilities, media_type, filename=str(file))
        shown = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
        print("shown:", shown.stdout.splitlines()[:2], "...")

        # Why Python dropped it: a file's name becomes part of a shell command. The last versions refuse such names.
        with warnings.catch_warnings(record=True) as caught:
            command, _ = mailcap.findmatch(capabilities, "text/plain", filename="x; rm -r .")
        print("a name with a command in it:", command, [str(warning.message) for warning in caught])
    print("mimetypes, by name:", mimetypes.guess_type("lines.txt"))


def failures() -> Failures:
    # findmatch returns None for an unknown type, and skips wrong lines of the table.
    yield "None as the table", lambda: mailcap.findmatch(None, "text/plain")
    yield "missing program", lambda: subprocess.run(["xv", "FILE"])
