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
