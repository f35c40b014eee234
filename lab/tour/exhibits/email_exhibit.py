"""Messages as objects: built with umlauts and attachments, sent, and parsed by the receiver.

Python 2: email
Python 3: email
Gone since: -
Use instead: still email, with EmailMessage and email.policy (Python 3.6); MIMEText and Header are the old interface
Servers: gallery_smtp, gallery_mail
"""

import time
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import localtime, make_msgid
from imaplib import IMAP4
from smtplib import SMTP

from lab.tour.accounts import ANN, BOB, DOMAIN
from lab.tour.faulty import Failures


def build() -> EmailMessage:
    """Return a message with everything that code without a library gets wrong."""
    message = EmailMessage()
    message["From"] = f"Ann <{ANN.address}>"
    message["To"] = f"Bob <{BOB.address}>"
    message["Subject"] = (
        "Grüße from the gallery, in a line that is longer than the seventy-eight that a header may have"
    )
    message["Date"] = localtime()
    message["Message-ID"] = make_msgid(domain=DOMAIN)
    message.set_content("Two versions of a text: ½ a line.\n")
    message.add_alternative("<p>Two versions of a text: <b>½</b> a line.</p>\n", subtype="html")
    message.add_attachment(bytes(range(8)), maintype="application", subtype="octet-stream", filename="naïve name.bin")
    return message


def fetch(message_id: str) -> bytes:
    """Wait for the message in Bob's inbox, fetch it and delete it."""
    with IMAP4("gallery_mail", timeout=10) as mail:
        mail.login(BOB.user, BOB.password)
        mail.select()
        while not (found := mail.search(None, "HEADER", "Message-ID", f'"{message_id}"')[1][0]):
            time.sleep(0.05)
            mail.noop()  # a server reports new messages in its reply to a command
        (_, data), _ = mail.fetch(found.decode(), "(RFC822)")[1]
        mail.store(found.decode(), "+FLAGS", r"\Deleted")
        mail.expunge()
    return bytes(data)


def visit() -> None:
    sent = build()
    with SMTP("gallery_smtp", timeout=10) as smtp:
        smtp.send_message(sent)  # sender and recipients come from the headers

    # The default policy is still that of Python 2.
    message = BytesParser(policy=policy.default).parsebytes(fetch(sent["Message-ID"]))
    print(message["Subject"])
    print("to:", message["To"].addresses[0].username, "at", message["To"].addresses[0].domain)
    for part in message.walk():
        print(" ", part.get_content_type(), part.get_filename() or "")
    body = message.get_body(("plain",))
    print("text:", body and body.get_content().strip())
    print("attached:", [part.get_content() for part in message.iter_attachments()])


def failures() -> Failures:
    message = build()

    def repeat_subject() -> None:
        message["Subject"] = "another"

    def inject_header() -> None:
        del message["Subject"]
        message["Subject"] = "Hello\r\nBcc: all@gallery.test"

    yield "second subject", repeat_subject
    yield "line break in a header", inject_header
    yield "character that the charset lacks", lambda: EmailMessage().set_content("½", charset="ascii")
    yield "unfinished headers", lambda: BytesParser(policy=policy.strict).parsebytes(b"Subject: x\nno header\n\n")
