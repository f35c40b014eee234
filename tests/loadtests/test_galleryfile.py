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
done, made = [], []
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

timeout = module._Transport().make_connection("127.0.0.1").timeout
def open_proxy(url, *, transport):
    made.append([url, type(transport).__name__])
    return Stub(system=Stub(listMethods=lambda: made.append("listMethods")))

module.xmlrpc.client.ServerProxy = open_proxy
module.XmlRpcUser(environment).connect()

# A client of FTP, news or the web.
class Link:
    def __init__(self, *given, **more):
        made.append([*given, more])

    def group(self, name):
        made.append(f"group {name}")

    def connect(self):
        made.append("connect")

    def close(self):
        made.append("close")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        made.append("log out")

module.ftplib.FTP = module.nntplib.NNTP = module.http.client.HTTPConnection = Link
for kind in (module.FtpUser, module.NewsUser, module.WebUser):
    user = kind(environment)
    user.disconnect(user.connect())
module.MailUser(environment).disconnect((Link("by SMTP"), Link("by IMAP")))
print("TOLD", json.dumps([done, timeout, made]))
"""
    )
    opened = ["gallery_mail", 10.0], ["login", "bob", "bobs-secret"], "select", ["gallery_smtp", 10.0]
    assert told[:2] == [[*opened, "shutdown"], 10.0]
    in_time = {"timeout": 10.0}
    assert told[2] == [
        *(["http://gallery_xmlrpc:8000/RPC2", "_Transport"], "listMethods"),
        *(["gallery_ftp", "ann", "anns-secret", in_time], "log out"),
        *(["gallery_news", {"user": "ann", "password": "anns-secret", **in_time}], "group gallery.test", "log out"),
        *(["gallery_web", in_time], "connect", "close"),
        *(["by SMTP", {}], ["by IMAP", {}], "log out", "log out"),
    ]


def test_steps_that_wait_or_clean_up_end() -> None:
    """A message that comes at the third look, and one that never does; and servers that have gone at the end."""
    told = run_script(
        START
        + """
import random
shown, now = [], [0.0]

def sleep(seconds):
    shown.append(seconds)
    now[0] += 2.0 if len(shown) > 2 else seconds

module.time = Stub(monotonic=lambda: now[0], sleep=sleep)
found = [[b""], [b""], [b"7"]]
looks = []
reader = Stub(noop=lambda: looks.append("noop"), uid=lambda *words: (looks.append(words), ("OK", found.pop(0)))[1])
user = link(module.MailUser, None)
number = user._find(reader, "a subject")
seen = [number, shown[:], looks[:2], len(looks)]
found += [[b""]] * 9
try:
    user._find(reader, "a subject")
except module.WrongReplyError as error:
    seen.append([str(error), now[0] > 10.0])

asked = []
groups = [("", 0, 0, 0, ""), ("", 50, 1, 50, ""), ("", 6, 45, 50, "")]

def over(numbers):
    asked.append(numbers)
    return "", [(numbers[0], {}), (numbers[1], {})]

news = link(module.NewsUser, Stub(group=lambda name: groups.pop(0), over=over))
for _ in range(3):
    news.look_around()
seen.append([asked, [error for name, _, error in rows if name == "overview"]])

def fail(*_):
    raise ConnectionResetError

class Leaving(module.FtpUser):
    connect = lambda self: Stub(storbinary=lambda *_: None, delete=fail)
    disconnect = fail

left = Leaving(environment)
left.on_start()
left.upload()
left.on_stop()
seen.append(left._client is None)
random.random = lambda: 0.0
least = left.wait_time()
random.random = lambda: 1.0
print("TOLD", json.dumps([*seen, [least, left.wait_time()]]))
"""
    )
    number, slept, looks, count, late, overview, has_left, rests = told
    assert (number, slept, looks, count) == ("7", [0.02] * 2, ["noop", ["SEARCH", "SUBJECT", "a subject"]], 6)
    assert late == ["an accepted message did not arrive within 10 s", True]
    # Of an empty group there is none, else of its last ten articles.
    assert overview == [[[41, 50], [45, 50]], ["NoneType"] * 3]
    assert (has_left, rests) == (True, [0.5, 1.5])
