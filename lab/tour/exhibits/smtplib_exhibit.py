"""Mail sent: directly to the recipient's server, or to your own server after a login.

Python 2: smtplib
Python 3: smtplib
Gone since: -
Use instead: still smtplib; aiosmtplib in a program with an event loop
Servers: gallery_smtp, gallery_mail
"""

import ssl
import time
from imaplib import IMAP4
from smtplib import LMTP, SMTP, SMTP_SSL

from lab.tour.accounts import ANN, BOB, WRONG_PASSWORD
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST, CA = "gallery_smtp", "/run/secrets/tls_ca"
MAIL = f"From: {ANN.address}\r\nTo: {BOB.address}\r\nSubject: by {{}}\r\n\r\nA dot alone:\r\n.\r\nnot the end.\r\n"


def arrived(way: str) -> None:
    """Wait until the message is in Bob's inbox, and delete it. A server accepts a message before it delivers it."""
    with IMAP4("gallery_mail", timeout=10) as mail:
        mail.login(BOB.user, BOB.password)
        mail.select()
        while not (found := mail.search(None, "SUBJECT", f'"by {way}"')[1][0]):
            time.sleep(0.05)
            mail.noop()  # a server reports new messages in its reply to a command
        for number in found.split():
            mail.store(number.decode(), "+FLAGS", r"\Deleted")
        mail.expunge()
        print(f"by {way}: arrived")


def visit() -> None:
    trusted = ssl.create_default_context(cafile=CA)
    with SMTP(HOST, timeout=10) as smtp:
        print("extensions:", *(smtp.ehlo()[1].decode().splitlines()[1:]))
        smtp.sendmail(ANN.address, [BOB.address], MAIL.format("port 25"))
    arrived("port 25")
    with SMTP(HOST, 587, timeout=10) as smtp:
        smtp.starttls(context=trusted)
        smtp.login(ANN.user, ANN.password)
        refused = smtp.sendmail(ANN.address, [BOB.address, "unknown@gallery.test"], MAIL.format("submission"))
        print("refused recipients:", refused)
    arrived("submission")
    with SMTP_SSL(HOST, timeout=10, context=trusted) as smtp:
        smtp.sendmail(ANN.address, [BOB.address], MAIL.format("SMTPS"))
    arrived("SMTPS")
    with LMTP("gallery_mail", 24) as lmtp:  # how the SMTP server delivers to the mail server
        lmtp.sendmail(ANN.address, [BOB.address], MAIL.format("LMTP"))
    arrived("LMTP")


def login(password: str) -> None:
    with SMTP(HOST, 587, timeout=10) as smtp:
        smtp.starttls(context=ssl.create_default_context(cafile=CA))
        smtp.login(ANN.user, password)


def send(sender: str, recipient: str) -> None:
    with SMTP(HOST, timeout=10) as smtp:
        smtp.sendmail(sender, [recipient], MAIL)


def failures() -> Failures:
    yield "wrong password", lambda: login(WRONG_PASSWORD)
    yield "login without TLS", lambda: SMTP(HOST, 587, timeout=10).login(ANN.user, ANN.password)
    yield "refused recipient", lambda: send(ANN.address, "unknown@gallery.test")
    yield "recipient at another site", lambda: send(ANN.address, "ann@example.com")
    yield "unknown host", lambda: SMTP(UNKNOWN_HOST)
    yield "closed port", lambda: SMTP(HOST, 9999)
    yield "untrusted certificate", lambda: SMTP_SSL(HOST, context=ssl.create_default_context())
    with breaking_off(b"220 ready\r\n", b"250 hello\r\n", b"250 sender\r\n") as port:
        yield "server closes in mid-transfer", lambda: SMTP("127.0.0.1", port).sendmail("a@b", ["c@d"], MAIL)
    with silent() as port:
        yield "no reply before the timeout", lambda: SMTP("127.0.0.1", port, timeout=SHORT)
