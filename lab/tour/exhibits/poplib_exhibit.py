"""Mail fetched from the server: counted, read, deleted.

Python 2: poplib
Python 3: poplib
Gone since: -
Use instead: still poplib; IMAP if mail should stay on the server
Servers: gallery_mail
"""

import ssl
from poplib import POP3, POP3_SSL
from smtplib import LMTP

from lab.tour.accounts import ANN, BOB, WRONG_PASSWORD
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST, CA = "gallery_mail", "/run/secrets/tls_ca"
MAIL = f"From: {ANN.address}\r\nTo: {BOB.address}\r\nSubject: to be fetched\r\n\r\nOne\r\n.\r\nThree\r\n"


def visit() -> None:
    with LMTP(HOST, 24) as lmtp:  # has delivered when it returns
        lmtp.sendmail(ANN.address, [BOB.address], MAIL)

    pop = POP3(HOST, timeout=10)
    print(pop.getwelcome())
    pop.stls(ssl.create_default_context(cafile=CA))
    pop.user(BOB.user)
    print(pop.pass_(BOB.password))
    count, size = pop.stat()
    print("mail is waiting:", count > 0 and size > 0)
    number = next(each for each in range(count, 0, -1) if b"Subject: to be fetched" in pop.top(each, 0)[1])
    name = pop.uidl(number).split()[2]  # numbers belong to this connection, names are permanent
    _, lines, _ = pop.top(number, 1)
    print("its headers and one line:", [line for line in lines if line.startswith((b"Subject", b"One"))])
    _, lines, _ = pop.retr(number)
    print("its text:", lines[lines.index(b"") + 1 :])
    pop.dele(number)
    pop.quit()  # deletes it now: a connection that ends without QUIT deletes nothing

    secure = POP3_SSL(HOST, timeout=10, context=ssl.create_default_context(cafile=CA))
    secure.apop(BOB.user, BOB.password)  # proves that the client knows the password, without sending it
    print("deleted:", all(name not in line for line in secure.uidl()[1]))
    secure.quit()


def login(password: str = BOB.password) -> POP3:
    pop = POP3(HOST, timeout=10)
    pop.user(BOB.user)
    pop.pass_(password)
    return pop


def failures() -> Failures:
    yield "wrong password", lambda: login(WRONG_PASSWORD)
    yield "missing message", lambda: login().retr(9999)
    yield "unknown host", lambda: POP3(UNKNOWN_HOST)
    yield "closed port", lambda: POP3(HOST, 9999)
    yield "untrusted certificate", lambda: POP3_SSL(HOST, context=ssl.create_default_context())
    with breaking_off(b"+OK ready\r\n", b"+OK 100 octets\r\nhalf of it\r\n") as port:
        yield "server closes in mid-transfer", lambda: POP3("127.0.0.1", port).retr(1)
    with silent() as port:
        yield "no reply before the timeout", lambda: POP3("127.0.0.1", port, timeout=SHORT)
