"""What the lab's locustfile makes of its options: groups, users, idle connections, objections. Nothing is loaded."""

import json

import pytest

from lab.load.workloads import IDLE_CONNECTIONS, WORKLOADS
from tests.support.scripts import run_script

# In a separate process: Locust patches the one that imports it.
SCRIPT = r"""
import json
from argparse import Namespace
from types import SimpleNamespace
import locust
from locust.event import EventHook
from locust.exception import StopTest
from locust.runners import LocalRunner, MasterRunner, WorkerRunner
from loadtests import locustfile
from loadtests.contract import FLAGS, LoadSpec
from loadtests.locustfile import LabUser, Profile
from loadtests.shapes import level
from loadtests.sockets.exchange import Body
from loadtests.sockets.schedule import Schedule

schedules = []


class Noted(Schedule):
    def __init__(self, rate, *, poisson):
        schedules.append([round(rate(0.0), 6), round(rate(2.0), 6), round(rate(9.0), 6), poisson])
        super().__init__(rate, poisson=poisson)


locustfile.Schedule = Noted


class Environment:
    pass


def make(runner=LocalRunner, **chosen):
    environment = Environment()
    environment.runner = runner.__new__(runner)
    environment.runner.greenlet = None
    environment.runner.worker_index = chosen.pop("worker_index", 0)
    spec = LoadSpec()
    flags = {name: getattr(spec, name) for name in FLAGS} | {"transport": "tcp"}
    more = {"models": ["a", "b", "c"], "num_users": 6, "spawn_rate": 2.0, "expect_workers": 3, "fault": "none"}
    environment.parsed_options = Namespace(**{**flags, **more, **chosen})
    environment.events = SimpleNamespace(test_stop=EventHook())
    return environment


shown = {"interval": locust.runners.WORKER_REPORT_INTERVAL}

# The group of a model.
for name, chosen in {
    "closed": {},
    "open": {"workload": "throughput", "loop": "open", "rate": 160.0, "timeout": 1.25},
    "payload": {"workload": "echo_1k", "payload": 9, "transport": "tls"},
    "ramp": {"loop": "open", "rate": 100.0, "shape": "ramp", "shape_time": 4.0, "arrivals": "random"},
    "page": {"workload": "http_ping"},
}.items():
    user = LabUser(make(**chosen))
    user.model = "b"
    group = user.make_group()
    series, exchange = group.series, group.exchange
    size = len(exchange.turns[0][0])
    shown[name] = [
        [series.model, series.workload, series.transport, series.loop],
        [str(group.address), group.timeout, group.is_open, exchange.depth, exchange.body.name, size],
    ]
shown["schedules"] = schedules

# Each user takes the model with the fewest, and a worker begins with its own.
LabUser.running.clear()
joined = []
locustfile.WireUser.on_start = lambda self: joined.append(self.model)
locustfile.WireUser.on_stop = lambda self: joined.append("left")
users = [LabUser(make(worker_index=1)) for _ in range(5)]
for user in users:
    user.on_start()
users[0].on_stop()
users[0].on_start()
shown["joined"] = joined[:]
shown["running"] = dict(LabUser.running)

# A script has a client of its own, and is counted as a closed loop.
made = []


class Client:
    def __init__(self, address, environment, series, *, timeout):
        made.append([str(address), series.workload, series.loop, timeout])

    def close(self):
        made.append("closed")


locustfile.SocketClient = Client
LabUser.running.clear()
name = next(name for name in LabUser.workloads if name in locustfile.SCRIPTS)
script = LabUser(make(workload=name, timeout=2.5))
script.on_start()
script.on_stop()
shown["script"] = [made, name, LabUser.running["a"]]

# Users of a closed loop follow the shape. In an open loop the rate does.
profile = Profile()
shown["users"] = []
for loop in ("closed", "open"):
    for passed in (0.0, 1.0, 2.0, 4.0, 9.0):
        profile.runner = SimpleNamespace(environment=make(loop=loop, shape="ramp", shape_time=4.0, num_users=40))
        profile.get_run_time = lambda: passed
        shown["users"].append(profile.tick())
profile.runner = SimpleNamespace(environment=make(num_users=40))
shown["users"].append(profile.tick())

# The limit of open files is raised as far as it must be, never lowered, and for 128 more than there are users.
INFINITY = -1
real, shown["limits"] = locustfile.resource, []
for soft, hard in ((100, 1000), (INFINITY, INFINITY), (100, INFINITY)):
    for users in (0, 372, 872, 873):
        raised = []
        locustfile.resource = SimpleNamespace(
            RLIMIT_NOFILE=7,
            RLIM_INFINITY=INFINITY,
            getrlimit=lambda kind: (soft, hard),
            setrlimit=lambda kind, limits: raised.append(limits),
        )
        shown["limits"].append([raised, locustfile.find_lack_of_descriptors(users)])
locustfile.resource = real

# Descriptors: for each user, and for each idle connection to each model.
needed = []
locustfile.find_lack_of_descriptors = lambda count: needed.append(count)
for runner in (LocalRunner, WorkerRunner, MasterRunner):
    for workload in ("ping", "idle_connections"):
        environment = make(runner, workload=workload, models=["a", "b"])
        shown.setdefault("objections", []).append(locustfile.find_objection(environment))
shown["needed"] = needed
form = Namespace(**{**vars(make().parsed_options), "num_users": 77})
locustfile.find_objection(make(), form)
shown["of_a_form"] = needed[-1]

# Idle connections: to each model, of each worker its part, until the test stops.
idle = []


class Idle:
    accepted = 10**6

    def __init__(self, address):
        self.address = address

    def open(self, count):
        idle.append([str(self.address), count])
        return min(count, Idle.accepted)

    def close(self):
        idle.append(["closed", str(self.address)])


locustfile.IdleConnections = Idle
shown["idle"] = {}
for runner, index in ((LocalRunner, 0), (WorkerRunner, 0), (WorkerRunner, 2)):
    environment = make(runner, workload="idle_connections", models=["a", "b"], worker_index=index)
    locustfile.open_idle_connections(environment)
    environment.events.test_stop.fire(environment=environment)
    shown["idle"][f"{runner.__name__} {index}"] = idle[:]
    idle.clear()
locustfile.open_idle_connections(make(workload="ping"))
shown["idle"]["none"] = idle[:]
Idle.accepted = 7
environment = make(workload="idle_connections", models=["a", "b"])
try:
    locustfile.open_idle_connections(environment)
except StopTest as error:
    shown["refused"] = str(error)
environment.events.test_stop.fire(environment=environment)
shown["after_refusal"] = idle

# The options, as Locust's parser gets them: of the lab's workloads, and of a codec's.
shown["options"] = []
lab_workloads = LabUser.workloads
for workloads in (lab_workloads, {"custom_protocol": lab_workloads["ping"]}):
    LabUser.workloads, offered = workloads, {}
    locustfile.add_options(SimpleNamespace(add_argument=lambda name, **about: offered.update({name: about})))
    shown["options"].append({
        name: [*(str(about.get(key)) for key in ("default", "include_in_web_ui", "is_multiple")), about["help"]]
        + [[*about.get("choices", ())]]
        for name, about in offered.items()
    })
LabUser.workloads = lab_workloads

# What a process sets up before there is a user.
steps = []


def note(name):
    return lambda *given, **more: steps.append([name, *more.values()])


for name in ("WindowCounter", "RunTime", "Window"):
    setattr(locustfile, name, note(name))
locustfile.check_form = lambda environment, check: steps.append(["form", check("asked")])
locustfile.RECORDER = SimpleNamespace(attach=note("recorder"))
locustfile.rate_shares = SimpleNamespace(attach=note("shares"))
locustfile.lifeline = SimpleNamespace(watch=note("lifeline"))
locustfile.gevent = SimpleNamespace(signal_handler=note("signal"), kill=None, getcurrent=lambda: None)
locustfile.find_objection = lambda environment, options=None: options or objection
shown["set_up"] = {}
for runner in (LocalRunner, WorkerRunner, MasterRunner):
    for has_page, window in ((True, None), (False, 3.5)):
        objection = "it does not work" if has_page else None
        environment = make(runner, headless=not has_page, window=window, warm_up=0.25)
        environment.web_ui = object() if has_page else None
        locustfile.start(environment)
        shown["set_up"][f"{runner.__name__} {has_page}"] = steps[:]
        steps.clear()
objection = "it does not work"
environment = make(headless=True)
environment.web_ui = None
try:
    locustfile.start(environment)
except SystemExit as error:
    shown["ends"] = error.code

# What a process does when a test starts.
shown["starts"] = {}
for runner in (LocalRunner, WorkerRunner, MasterRunner):
    for objection in (None, "it does not work"):
        steps = []
        engine = SimpleNamespace(clear=lambda: steps.append("clear"))
        locustfile.Engine = SimpleNamespace(of=lambda environment: engine)
        locustfile.find_objection = lambda environment: objection
        locustfile.open_idle_connections = lambda environment: steps.append("idle")
        locustfile.faults = SimpleNamespace(schedule=lambda environment: steps.append("faults"))
        try:
            locustfile.start_test(make(runner))
        except StopTest as error:
            steps.append(str(error))
        shown["starts"][f"{runner.__name__} {objection is None}"] = steps
print("TOLD", json.dumps(shown))
"""

TARGETS = [
    {
        "model": model,
        "listeners": [
            {"service": "command", "address": f"tcp://{model}:1"},
            {"service": "echo", "address": f"tls://{model}:3"},
            {"service": "http", "address": f"tcp://{model}:2", "path": "/page", "body": "any"},
        ],
    }
    for model in ("a", "b", "c")
]

PING = b"*1\r\n$4\r\nPING\r\n"

# They share the output of one process.
pytestmark = pytest.mark.xdist_group("lab-user")


@pytest.fixture(scope="module")
def shown():
    return run_script(SCRIPT, {"LAB_TARGETS": json.dumps(TARGETS)})


def test_group_is_what_the_options_ask_for(shown):
    assert shown["closed"] == [["b", "ping", "tcp", "closed"], ["tcp://b:1", 5.0, False, 1, "GIVEN", len(PING)]]
    series, (*group, _) = shown["open"]
    assert (series, group) == (["b", "throughput", "tcp", "open"], ["tcp://b:1", 1.25, True, 16, "GIVEN"])
    assert shown["payload"] == [["b", "echo_1k", "tls", "closed"], ["tls://b:3", 5.0, False, 1, "GIVEN", 9]]
    series, (*group, _) = shown["page"]
    assert (series, group) == (["b", "http_ping", "tcp", "closed"], ["tcp://b:2", 5.0, False, 1, "ANY"])
    # 160 requests/s in exchanges of 16; and 100 at the end of a ramp of 4 s, at random times.
    assert shown["schedules"] == [[10.0, 10.0, 10.0, False], [1.0, 50.0, 100.0, True]]


def test_options_are_those_of_the_form_but_for_a_measured_window(shown):
    found, of_codec = shown["options"]
    models = found.pop("--models")
    assert (models[0], models[2], models[4]) == ("['a', 'b', 'c']", "True", ["a", "b", "c"])
    workload = found["--workload"]
    assert (workload[0], workload[4]) == ("ping", [*WORKLOADS])
    # For argparse, a percent sign is the begin of a name.
    assert "mixed: 90 %% small requests, 10 %% sleep or compute" in workload[3]
    assert {name for name, about in found.items() if about[1] == "False"} == {"--window", "--warm-up"}
    assert {about[1] for about in found.values()} == {"True", "False"}
    assert (found["--transport"][0], found["--rate"][0], found["--timeout"][0]) == ("tcp", "1000.0", "5.0")
    assert (of_codec["--workload"][0], of_codec["--workload"][4]) == ("custom_protocol", ["custom_protocol"])


def test_models_have_equal_numbers_of_users_beginning_with_the_workers_own(shown):
    assert shown["joined"] == ["b", "c", "a", "b", "c", "left", "b"]
    assert shown["running"] == {"a": 1, "b": 2, "c": 2}


def test_worker_reports_as_often_as_the_live_page_has_points(shown):
    assert shown["interval"] == 1.0


def test_script_has_a_client_with_its_timeout_until_it_stops(shown):
    made, name, running = shown["script"]
    assert made == [["tcp://a:1", name, "closed", 2.5], "closed"]
    assert running == 0


def test_users_follow_the_shape_only_in_a_closed_loop(shown):
    # A shape adds its users at once.
    closed = [[1, 40], [10, 40], [20, 40], [40, 40], [40, 40]]
    assert shown["users"] == [*closed, *[[40, 2.0]] * 5, [40, 2.0]]


def test_limit_of_open_files_is_raised_if_it_must_be_and_can_be(shown):
    lack = "873 users need 1001 open files, and this process may open 1000: raise `ulimit -n`"
    assert shown["limits"] == [
        *([[[128, 1000]], None], [[[500, 1000]], None], [[[1000, 1000]], None], [[], lack]),
        *[[[], None]] * 4,
        *([[[needed, -1]], None] for needed in (128, 500, 1000, 1001)),
    ]


def test_descriptors_are_counted_for_users_and_idle_connections_of_this_process(shown):
    assert shown["objections"] == [None] * 6
    # A master has no users: each worker counts.
    assert shown["needed"][:4] == [6, 6 + 2 * IDLE_CONNECTIONS, 6, 6 + 2 * IDLE_CONNECTIONS]
    assert (len(shown["needed"]), shown["of_a_form"]) == (5, 77)


def test_idle_connections_are_divided_among_workers_and_closed_with_the_test(shown):
    def of(count):
        return [["tcp://a:1", count], ["tcp://b:1", count], ["closed", "tcp://a:1"], ["closed", "tcp://b:1"]]

    assert shown["idle"] == {
        "LocalRunner 0": of(IDLE_CONNECTIONS),
        "WorkerRunner 0": of(IDLE_CONNECTIONS // 3),
        "WorkerRunner 2": of(IDLE_CONNECTIONS - 2 * IDLE_CONNECTIONS // 3),
        "none": [],
    }
    assert shown["refused"] == f"a accepted 7 of {IDLE_CONNECTIONS} idle connections"
    # Those that were accepted are closed.
    assert shown["after_refusal"] == [["tcp://a:1", IDLE_CONNECTIONS], ["closed", "tcp://a:1"]]


def test_each_process_prepares_its_part_of_a_test(shown):
    refused = ["clear", "it does not work"]
    assert shown["starts"] == {
        "LocalRunner True": ["clear", "idle", "faults"],
        "WorkerRunner True": ["clear", "idle"],
        "MasterRunner True": ["clear", "faults"],
        "LocalRunner False": refused,
        "WorkerRunner False": refused,
        "MasterRunner False": refused,
    }


def test_each_process_is_set_up_for_its_part_of_the_load(shown):
    first = [["signal"], ["lifeline"], ["recorder"], ["shares"]]
    # The form is checked by its own values, and an objection to the first ones ends only what has no form.
    form, window = ["form", "asked"], ["Window", 0.25, 3.5]
    assert shown["set_up"] == {
        "LocalRunner True": [*first, ["WindowCounter"], form, ["RunTime"]],
        "LocalRunner False": [*first, ["WindowCounter"], ["RunTime"], window],
        "WorkerRunner True": [*first, ["WindowCounter"], form],
        "WorkerRunner False": [*first, ["WindowCounter"]],
        "MasterRunner True": [*first, form, ["RunTime"]],
        "MasterRunner False": [*first, ["RunTime"], window],
    }
    assert shown["ends"] == "locustfile: it does not work"
