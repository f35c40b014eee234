"""Mail that stays on the server: folders, searches and flags.

Python 2: imaplib
Python 3: imaplib
Gone since: -
Use instead: still imaplib; imap-tools or IMAPClient also parse its results
Servers: gallery_mail
"""

import ssl
from imaplib import IMAP4, IMAP4_SSL

from lab.tour.accounts import ANN, WRONG_PASSWORD
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST, CA, FOLDER = "gallery_mail", "/run/secrets/tls_ca", "drafts"
MAIL = b"From: ann@gallery.test\r\nSubject: draft %d\r\n\r\nNot yet.\r\n"


def visit() -> None:
    with IMAP4(HOST, timeout=10) as mail:
        mail.starttls(ssl.create_default_context(cafile=CA))
        mail.login(ANN.user, ANN.password)
        print("folders:", mail.list()[1])
        mail.create(FOLDER)
        for number in (1, 2, 3):
            mail.append(FOLDER, r"\Seen" if number == 1 else "", "", MAIL % number)

        print("selected:", mail.select(FOLDER))
        print("unread:", mail.search(None, "UNSEEN")[1])
        found = mail.search(None, "SUBJECT", '"draft 2"')[1][0]
        (_, headers), _ = mail.fetch(found.decode(), "(BODY.PEEK[HEADER])")[1]
        print("found:", headers)
        print("flagged:", mail.store(found.decode(), "+FLAGS", r"\Flagged")[1])
        mail.store("1", "+FLAGS", r"\Deleted")
        print("deleted:", mail.expunge()[1])  # all later messages get new numbers
        print("the rest, by permanent numbers:", mail.uid("SEARCH", "ALL"))
        mail.close()
        mail.delete(FOLDER)

    with IMAP4_SSL(HOST, timeout=10, ssl_context=ssl.create_default_context(cafile=CA)) as mail:
        mail.login_cram_md5(ANN.user, ANN.password)  # does not send the password itself
        print("over TLS:", mail.status("INBOX", "(UIDNEXT)")[0])


def login(password: str = ANN.password) -> IMAP4:
    mail = IMAP4(HOST, timeout=10)
    mail.login(ANN.user, password)
    return mail


def failures() -> Failures:
    yield "wrong password", lambda: login(WRONG_PASSWORD)
    yield "search without a selected folder", lambda: login().search(None, "ALL")
    yield "invalid search", lambda: (mail := login()).select() and mail.search(None, "NONSENSE")
    yield "unknown host", lambda: IMAP4(UNKNOWN_HOST)
    yield "closed port", lambda: IMAP4(HOST, 9999)
    yield "untrusted certificate", lambda: IMAP4_SSL(HOST, ssl_context=ssl.create_default_context())
    with breaking_off(b"* PREAUTH ready\r\n", b"* CAPABILITY IM") as port:
        yield "server closes in mid-transfer", lambda: IMAP4("127.0.0.1", port)
    with silent() as port:
        yield "no reply before the timeout", lambda: IMAP4("127.0.0.1", port, timeout=SHORT)
