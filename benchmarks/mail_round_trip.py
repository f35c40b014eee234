"""How long a message is under way in the gallery: from smtplib by OpenSMTPD and LMTP into dovecot, out by imaplib.

    python -m benchmarks.mail_round_trip [MESSAGES]

In turns, message by message: over connections that are kept, and over connections that are new each time, with TLS
and both logins, as a mail program has them that starts. The client is a container on the lab's network, and asks the
mailbox every millisecond. Prints medians and more; the aim is a median of less than 100 ms.
"""

import json
import os
import sys
from collections.abc import Sequence
from statistics import median

from benchmarks.figures import percentile
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers

PROJECT = f"bench-mail-{os.getpid()}"
SERVERS = ("gallery_smtp", "gallery_mail")
AIM_MS = 100.0

# Runs in the lab's shell: prints a line of JSON, milliseconds by the way that the messages went.
CLIENT = """
import contextlib, imaplib, json, os, smtplib, ssl, sys, time, uuid

tls = ssl.create_default_context(cafile=os.environ["LAB_TLS_CA"])

def open_kept(stack):
    sender = stack.enter_context(smtplib.SMTP("gallery_smtp", 25, timeout=20))
    reader = stack.enter_context(imaplib.IMAP4("gallery_mail", timeout=20))
    reader.login("bob", "bobs-secret")
    reader.select()
    return sender, reader

def open_new(stack):
    sender = stack.enter_context(smtplib.SMTP("gallery_smtp", 587, timeout=20))
    sender.starttls(context=tls)
    sender.login("ann", "anns-secret")
    reader = stack.enter_context(imaplib.IMAP4_SSL("gallery_mail", ssl_context=tls, timeout=20))
    reader.login("bob", "bobs-secret")
    reader.select()
    return sender, reader

def pass_on(sender, reader):
    subject = uuid.uuid4().hex
    message = f"From: ann@gallery.test\\nSubject: {subject}\\n\\nHello.\\n"
    sender.sendmail("ann@gallery.test", "bob@gallery.test", message)
    while True:
        reader.noop()
        if numbers := reader.uid("SEARCH", "SUBJECT", subject)[1][0]:
            break
        time.sleep(0.001)
    assert subject.encode() in reader.uid("FETCH", numbers.decode(), "(RFC822)")[1][0][1]
    # A mailbox that grows would be measured too.
    reader.uid("STORE", numbers.decode(), "+FLAGS.SILENT", r"(\\Deleted)")

times = {"kept": [], "new": []}
with contextlib.ExitStack() as kept:
    clients = open_kept(kept)
    for number in range(-5, int(sys.argv[1])):
        for way in ("kept", "new") if number % 2 else ("new", "kept"):
            with contextlib.ExitStack() as new:
                begin = time.perf_counter()
                pass_on(*(clients if way == "kept" else open_new(new)))
                passed = (time.perf_counter() - begin) * 1000
            clients[1].expunge()
            if number >= 0:  # the first of all are the warm-up
                times[way].append(passed)
print(json.dumps(times))
"""


def show(way: str, times: Sequence[float]) -> str:
    """Return the line of one way, of milliseconds."""
    verdict = "below" if median(times) < AIM_MS else "NOT below"
    return (
        f"connections {way}: {len(times)} messages, median {median(times):.1f} ms, {verdict} {AIM_MS:g}; "
        f"nine of ten within {percentile(times, 0.9):.1f}, all within {max(times):.1f}"
    )


def main(messages: int) -> None:
    """Start the two servers, and print what their client has found."""
    catalogue = Catalogue.load()
    backend = Containers(PROJECT, catalogue)
    try:
        backend.up_gallery(catalogue.select_gallery(SERVERS))
        done = backend.helpers.run(["python", "-", str(messages)], stdin=CLIENT, capture=True, timeout=600)
    finally:
        backend.down()
    if done.returncode:
        sys.exit(done.stderr)
    for way, times in json.loads(done.stdout).items():
        print(show(way, times))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
