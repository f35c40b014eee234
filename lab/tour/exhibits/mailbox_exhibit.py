"""Mail in files and folders: Maildir, mbox and older formats.

Python 2: mailbox
Python 3: mailbox
Gone since: -
Use instead: still mailbox
Servers: gallery_mail
"""

import mailbox
import tempfile
from pathlib import Path
from poplib import POP3
from smtplib import LMTP

from lab.tour.accounts import ANN, BOB
from lab.tour.faulty import Failures


def fetch(subjects: list[str]) -> list[bytes]:
    """Deliver a message for each subject to the server, fetch them by POP3 and delete them there."""
    with LMTP("gallery_mail", 24) as lmtp:
        for subject in subjects:
            text = f"From: {ANN.address}\r\nSubject: {subject}\r\n\r\nFrom here on, text.\r\n"
            lmtp.sendmail(ANN.address, [BOB.address], text)
    pop = POP3("gallery_mail", timeout=10)
    pop.user(BOB.user)
    pop.pass_(BOB.password)
    messages = []
    for number in range(1, pop.stat()[0] + 1):
        _, lines, _ = pop.retr(number)
        if any(f"Subject: {subject}".encode() in lines for subject in subjects):
            messages.append(b"\n".join(lines) + b"\n")
            pop.dele(number)
    pop.quit()
    return messages


def visit() -> None:
    messages = fetch(["first", "second", "third"])
    with tempfile.TemporaryDirectory() as directory:
        maildir = mailbox.Maildir(str(Path(directory) / "Maildir"))
        keys = [maildir.add(message) for message in messages]
        read = maildir.get_message(keys[0])
        read.set_subdir("cur")  # out of "new": a program has seen it
        read.add_flag("S")
        maildir[keys[0]] = read
        print("Maildir, one file per message:", sorted(path.name for path in Path(directory, "Maildir").iterdir()))
        print("  new:", len(list(Path(directory, "Maildir", "new").iterdir())), "read:", maildir[keys[0]].get_flags())

        mbox = mailbox.mbox(str(Path(directory) / "mbox"))
        mbox.lock()  # other programs may write to the same file
        for message in maildir:
            mbox.add(message)
        mbox.close()
        lines = Path(directory, "mbox").read_bytes().splitlines()
        print("mbox, one file for all messages:", sum(line.startswith(b"From ") for line in lines), "messages")
        print("  escaped, like the start of a message:", next(line for line in lines if line.startswith(b">")))

        for kind in (mailbox.MMDF, mailbox.Babyl):
            box = kind(str(Path(directory) / kind.__name__))
            for message in maildir:
                box.add(message)
            box.close()
            print(f"{kind.__name__}:", sorted(str(message["Subject"]) for message in kind(str(box._path))))


def failures() -> Failures:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "box")
        yield "missing mailbox", lambda: mailbox.mbox(path, create=False)
        box = mailbox.mbox(path)
        box.add("Subject: there\n\n")
        box.flush()
        yield "missing message", lambda: box[9]
        box.lock()
        yield "mailbox with a lock", lambda: mailbox.mbox(path).lock()
        box.close()
        yield "missing folder", lambda: mailbox.Maildir(directory, create=True).get_folder("none")
