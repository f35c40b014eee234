"""`loadtests/galleryfile.py` without the gallery: what its users count, when they connect, and what they notice."""

from tests.support.scripts import run_script

# What is counted, one row for each step, and how often a user has connected and disconnected. The clock goes on by a
# quarter of a second with each look at it.
START = """
import json
from contextlib import suppress
from itertools import count
from types import SimpleNamespace as Stub
from xmlrpc.client import Binary

from locust.env import Environment
from locust.exception import RescheduleTask
from loadtests import galleryfile as module

times = count(step=0.25)
module.perf_counter = lambda: next(times)
module.log.disabled = True
rows, links = [], []
environment = Environment()

@environment.events.request.add_listener
def note(name, response_time, exception, **_):
    rows.append([name, response_time, type(exception).__name__])

def link(user, client, is_refused=lambda: False):
    class Linked(user):
        abstract = False

        def connect(self):
            links.append("connect")
            if is_refused():
                raise ConnectionRefusedError
            return client

        def disconnect(self, client):
            links.append("disconnect")

    return Linked(environment)
"""


def test_user_has_a_new_client_after_a_failure_and_else_keeps_it() -> None:
    told = run_script(
        START
        + """
user = link(module.WebUser, object())
with user.step("first"):
    pass
with user.step("second"):
    raise EOFError
with user.step("third"):
    pass
user.on_stop()
user.on_stop()
print("TOLD", json.dumps([rows, links]))
"""
    )
    connect = ["connect", 250, "NoneType"]
    third = ["third", 250, "NoneType"]
    expected = [connect, ["first", 250, "NoneType"], ["second", 250, "EOFError"], connect, third]
    assert told == [expected, ["connect", "disconnect", "connect", "disconnect"]]


def test_user_that_cannot_connect_makes_no_step() -> None:
    told = run_script(
        START
        + """
refusals = iter([True, False])
user = link(module.WebUser, object(), lambda: next(refusals))
made = []
for number in range(2):
    with suppress(RescheduleTask), user.step("step"):
        made.append(number)
print("TOLD", json.dumps([rows, links, made]))
"""
    )
    refused, connect = ["connect", 250, "ConnectionRefusedError"], ["connect", 250, "NoneType"]
    assert told == [[refused, connect, ["step", 250, "NoneType"]], ["connect", "connect"], [1]]


def test_mistake_in_the_file_is_not_counted_as_a_failure() -> None:
    told = run_script(
        START
        + """
user = link(module.WebUser, object())
raised = False
try:
    with user.step("step"):
        raise TypeError
except TypeError:
    raised = True
print("TOLD", json.dumps([raised, [name for name, *_ in rows]]))
"""
    )
    assert told == [True, ["connect"]]


def test_churning_user_has_a_new_connection_for_each_step() -> None:
    told = run_script(
        START
        + """
user = link(module.WebChurnUser, object())
for _ in range(2):
    with user.step("step"):
        pass
print("TOLD", json.dumps([[name for name, *_ in rows], links]))
"""
    )
    assert told == [["connect", "step"] * 2, ["connect", "disconnect"] * 2]


def test_each_wrong_reply_is_a_failure() -> None:
    """Servers that accept everything, and return something else."""
    told = run_script(
        START
        + """
nothing = lambda *_, **__: None
ftp = Stub(storbinary=nothing, retrbinary=lambda command, callback: callback(b"x"), delete=nothing)
answers = {"SEARCH": [b"1"], "FETCH": [b"a notice", (b"1 (BODY", b"x")], "STORE": [], "EXPUNGE": []}
reader = Stub(noop=nothing, uid=lambda command, *_: ("OK", answers[command]))
web = Stub(request=nothing, getresponse=lambda: Stub(status=200, read=lambda: b"x"))
calls = Stub(add=lambda a, b: a + b + 1, reverse=lambda data: Binary(data.data))
news = Stub(
    post=nothing,
    body=lambda message_id: ("", Stub(lines=[b"x"])),
    group=lambda name: ("", 3, 5, 7, name),
    over=lambda numbers: ("", [(4, {}), (7, {})]),
)
for user, client, tasks in [
    (module.FtpUser, ftp, ["download", "upload", "download"]),
    (module.MailUser, (Stub(send_message=nothing), reader), ["send_and_read"]),
    (module.WebUser, web, ["read_file", "read_range", "run_script"]),
    (module.XmlRpcUser, calls, ["add", "reverse"]),
    (module.NewsUser, news, ["read", "post", "read", "look_around"]),
]:
    linked = link(user, client)
    linked.on_start()
    for name in tasks:
        getattr(linked, name)()
print("TOLD", json.dumps([[name, error] for name, _, error in rows if name != "connect"]))
"""
    )
    wrong, right = "WrongReplyError", "NoneType"
    assert told == [
        ["upload", right],
        ["download", wrong],
        ["SMTP send", right],
        ["IMAP fetch", wrong],
        ["GET /lines.txt, kept", wrong],
        ["GET /lines.txt, kept", wrong],
        ["CGI, kept", wrong],
        ["add", wrong],
        ["reverse", wrong],
        ["post", right],
        ["read", wrong],
        ["overview", wrong],
    ]


def test_what_the_server_refused_is_not_asked_for() -> None:
    """The second upload and the second article fail: the first ones are no longer what must be there."""
    told = run_script(
        START
        + """
def refuse_the_second(calls=count()):
    if next(calls):
        raise OSError

nothing = lambda *_, **__: None
ftp = Stub(storbinary=lambda *_, calls=count(): refuse_the_second(calls), retrbinary=nothing, delete=nothing)
news = Stub(post=lambda *_, calls=count(): refuse_the_second(calls), body=lambda message_id: ("", Stub(lines=[])))
for user, client, tasks in [
    (module.FtpUser, ftp, ["upload", "upload", "download"]),
    (module.NewsUser, news, ["post", "post", "read"]),
]:
    linked = link(user, client)
    linked.on_start()
    for name in tasks:
        getattr(linked, name)()
print("TOLD", json.dumps([[name, error] for name, _, error in rows if name != "connect"]))
"""
    )
    assert told == [["upload", "NoneType"], ["upload", "OSError"], ["post", "NoneType"], ["post", "OSError"]]


def test_users_leave_nothing_on_the_servers() -> None:
    told = run_script(
        START
        + """
deleted, stored, asked = [], [], []
ftp = Stub(storbinary=lambda command, file: stored.append(command), delete=deleted.append)
for is_uploaded in (False, True):
    user = link(module.FtpUser, ftp)
    user.on_start()
    with user.step("connect"):
        pass
    if is_uploaded:
        user.upload()
    user.on_stop()

sent = []
def answer(command, *words):
    asked.append([command, *words])
    text = sent[0].get_content().replace("\\n", "\\r\\n").encode()
    return "OK", {"SEARCH": [b"7"], "FETCH": [(b"7 (BODY", text)]}.get(command, [])

mail = Stub(send_message=sent.append), Stub(noop=lambda: None, uid=answer)
link(module.MailUser, mail).send_and_read()
print("TOLD", json.dumps([[f"STOR {path}" for path in deleted] == stored, len(stored), asked[2:], rows[-1][2]]))
"""
    )
    # The message that was read, by its number.
    assert told == [True, 1, [["STORE", "7", "+FLAGS.SILENT", r"(\Deleted)"], ["EXPUNGE", "7"]], "NoneType"]


def test_connections_are_closed_and_have_a_timeout() -> None:
    told = run_script(
        START
        + """
done = []
class Reader:
    def __init__(self, host, timeout):
        done.append([host, timeout])

    def login(self, *who):
        done.append(["login", *who])

    def select(self):
        done.append("select")

    def shutdown(self):
        done.append("shutdown")

def refuse(host, timeout):
    done.append([host, timeout])
    raise ConnectionRefusedError

module.imaplib.IMAP4, module.smtplib.SMTP = Reader, refuse
with suppress(ConnectionRefusedError):
    module.MailUser(environment).connect()
print("TOLD", json.dumps([done, module._Transport().make_connection("127.0.0.1").timeout]))
"""
    )
    opened = ["gallery_mail", 10.0], ["login", "bob", "bobs-secret"], "select", ["gallery_smtp", 10.0]
    assert told == [[*opened, "shutdown"], 10.0]
