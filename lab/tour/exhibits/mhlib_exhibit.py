"""MH: a folder is a directory, a message is a file with a number as its name, a sequence is a named set of messages.

Python 2: mhlib
Python 3: mailbox.MH
Gone since: 3.0
Use instead: mailbox.MH, shown here; mhlib itself ended with Python 2
Servers: gallery_mail
"""

import mailbox
import tempfile
from imaplib import IMAP4
from pathlib import Path

from lab.tour.accounts import ANN
from lab.tour.faulty import Failures


def fetch(count: int) -> list[bytes]:
    """Store messages on the server, and return them as it sends them back."""
    with IMAP4("gallery_mail", timeout=10) as mail:
        mail.login(ANN.user, ANN.password)
        mail.create("mh")
        for number in range(1, count + 1):
            mail.append("mh", "", "", b"Subject: message %d\r\n\r\nText.\r\n" % number)
        mail.select("mh")
        reply = mail.fetch("1:*", "(RFC822)")[1]
        mail.close()
        mail.delete("mh")
        return [bytes(part[1]) for part in reply if isinstance(part, tuple)]


def visit() -> None:
    with tempfile.TemporaryDirectory() as directory:
        mh = mailbox.MH(str(Path(directory) / "Mail"))
        inbox = mh.add_folder("inbox")
        for message in fetch(4):
            inbox.add(message)
        print("folders: ", mh.list_folders())
        print("files:   ", sorted(path.name for path in Path(directory, "Mail", "inbox").iterdir()))

        inbox.set_sequences({"unseen": [2, 3, 4], "important": [3]})
        print("on disk: ", Path(directory, "Mail", "inbox", ".mh_sequences").read_text().splitlines())
        first = inbox.get_message(3)
        print("message 3:", first.get_sequences(), first["Subject"])

        inbox.remove(1)
        inbox.pack()  # removes gaps between the numbers, and adapts the sequences
        print("packed:  ", inbox.keys(), inbox.get_sequences())
        archive = mh.add_folder("archive")
        archive.add(inbox.get_message(2))  # keeps the names of its sequences
        print("archived:", archive.get_sequences())


def failures() -> Failures:
    with tempfile.TemporaryDirectory() as directory:
        mh = mailbox.MH(directory)
        yield "missing folder", lambda: mh.get_folder("none")
        full = mh.add_folder("full")
        full.add("Subject: there\n\n")
        yield "missing message", lambda: full.get_message(7)
        yield "removal of a folder that is not empty", lambda: mh.remove_folder("full")
