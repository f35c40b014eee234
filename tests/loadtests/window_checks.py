"""A measured window: the counts of one process, and the messages. Runs in a process that gevent has patched.

`test_window_counts_from_its_begin_to_its_end` in test_measurement.py starts this file, and so does the mutation
runner: Locust, which loadtests/window.py imports, patches the process that imports it.
"""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import gevent
import pytest
from locust import runners
from locust.env import Environment

from lab.base.messages import decode
from lab.load.messages import Joined
from loadtests import joining, rate_shares
from loadtests import window as measurement
from loadtests.contract import LoadResult
from loadtests.course import SECONDS, sample_forever
from loadtests.parts import CoreTime, Group, Part, Pulse
from loadtests.sockets.engine import Engine
from loadtests.sockets.histogram import Histogram
from loadtests.sockets.recorder import Recorder, Series, Tally
from loadtests.window import Window, WindowCounter

ONE, OTHER = Series("one", "ping", "tcp", "closed"), Series("other", "ping", "tls", "open")


class Runner:
    """A runner that records registrations, messages and quits."""

    def __init__(self, workers=1):
        self.worker_count, self.listeners, self.sent, self.quits = workers, {}, [], 0

    def register_message(self, name, listener):
        self.listeners[name] = listener

    def send_message(self, name, data):
        self.sent.append((name, data))

    def quit(self):
        self.quits += 1


class Master(Runner):
    pass


class Tallies:
    """Tallies of the warm-up until the reset, then those of the window."""

    def __init__(self):
        self.resets = 0
        self.of_window = Tally(answered=9, user_seconds=7.5, failures=Counter({"closed": 1}))

    def tallies(self):
        if not self.resets:
            return {ONE: Tally(failures=Counter({"refused": 2}))}
        return {ONE: self.of_window}

    def reset(self):
        self.resets += 1


class Connection:
    def __init__(self, group, answered):
        self.group, self.answered = group, answered


@pytest.fixture
def counter(monkeypatch):
    """A counter with two groups: in one, one connection gets no reply in the window; in the other, none does."""
    one, other = (
        SimpleNamespace(series=series, exchange=SimpleNamespace(depth=depth), answered_in_all=answered)
        for series, depth, answered in ((ONE, 4, 100), (OTHER, 1, 7))
    )
    one.connections = [Connection(one, count) for count in (5, 6, 3)]
    other.connections = [Connection(other, 0)]
    done: list[object] = []
    engine = SimpleNamespace(groups=[one, other])
    engine.count_backlog_as_dropped = lambda: done.append("count_backlog_as_dropped")
    clocks = {"process_time": [3.0, 3.75], "read_throttled": [1.0, 1.5]}
    for name, values in clocks.items():
        monkeypatch.setattr(measurement, name, lambda values=values: values.pop(0))
    tallies = Tallies()
    flushed = [9.75, 10.0, 12.5]

    def flush():
        done.append("flush")
        return flushed.pop(0)

    def abort():
        # Its connections are counted up to their end, in the tallies of the window.
        done.append("abort")
        tallies.of_window.user_seconds += 0.5

    engine.flush, engine.abort = flush, abort
    monkeypatch.setattr(measurement, "RECORDER", tallies)
    monkeypatch.setattr(Engine, "of", lambda environment: engine)
    pulse = SimpleNamespace(longest=0.25, beat=lambda: done.append("beat"))
    monkeypatch.setattr(measurement, "Pulse", lambda: pulse)
    beating = SimpleNamespace(kill=lambda block: done.append(f"kill {block}"))

    def spawn(beat, given):
        done.append(beat is WindowCounter._beat and given is pulse)
        return beating

    monkeypatch.setattr(gevent, "spawn", spawn)
    runner = Runner()
    stats = SimpleNamespace(reset_all=lambda: done.append("reset_all"))
    made = WindowCounter(cast(Environment, SimpleNamespace(runner=runner, stats=stats)))
    return SimpleNamespace(counter=made, runner=runner, groups=(one, other), done=done, clocks=clocks)


def tell(counter, word):
    counter.runner.listeners["socketlab_window"](SimpleNamespace(data=word), environment=None)


def test_counter_sends_the_counts_of_the_window(counter):
    tell(counter, "begin")
    # The first hand-over takes time, which does not belong to the window.
    assert counter.done == ["flush", "flush", "reset_all", True]
    assert counter.runner.sent == []
    counter.groups[0].connections[1].answered = 8
    counter.done.clear()
    tell(counter, "end")
    # What is under way is held first; nothing is asked once everything is counted.
    assert counter.done == ["count_backlog_as_dropped", "flush", "beat", "kill False", "abort"]
    ((name, part),) = counter.runner.sent
    assert name == "socketlab_part"
    assert Part.decode(json.loads(json.dumps(part))) == Part(
        seconds=2.5,
        cpu=0.75,
        throttled=0.5,
        stalled=0.25,
        groups=(
            Group(ONE, 4, Tally(answered=9, user_seconds=7.5, failures=Counter({"closed": 1})), 2, 100, {"refused": 2}),
            Group(OTHER, 1, Tally(), 1, 7, {}),
        ),
    )


def test_counter_that_joined_late_has_no_begin(counter):
    tell(counter, "end")
    ((_, data),) = counter.runner.sent
    part = Part.decode(data)
    assert (part.stalled, part.throttled, part.groups[0].starved) == (None, None, 0)
    assert counter.done == ["count_backlog_as_dropped", "flush", "abort"]


def test_throttled_time_without_a_last_reading_is_unknown(counter):
    counter.clocks["read_throttled"][1] = None
    tell(counter, "begin")
    tell(counter, "end")
    assert counter.runner.sent[0][1]["throttled"] is None


def test_pulse_beats_ten_times_a_second(monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            raise StopIteration

    beats = []
    monkeypatch.setattr(gevent, "sleep", sleep)
    with pytest.raises(StopIteration):
        WindowCounter._beat(cast(Pulse, SimpleNamespace(beat=lambda: beats.append(1))))
    assert (slept, len(beats)) == ([0.1] * 3, 2)


class Hook:
    def __init__(self):
        self.listeners = []

    def add_listener(self, listener):
        self.listeners.append(listener)


# The times of the only core of the machine.
BEGIN, END = (CoreTime(3.0, 1.0),), (CoreTime(7.5, 1.25),)


@pytest.fixture
def window(monkeypatch):
    """A window of 5 s after a warm-up of 2 s, with a clock that advances with each sleep."""

    def start(runner, *, cores=(BEGIN, END), then=()):
        now, slept, comes, readings = [100.0], [], list(then), list(cores)

        def sleep(seconds):
            slept.append(seconds)
            now[0] += seconds
            if len(slept) > 2 and comes:
                made._receive(SimpleNamespace(data=comes.pop(0).encode()))

        monkeypatch.setattr(gevent, "sleep", sleep)
        monkeypatch.setattr(measurement, "monotonic", lambda: now[0])
        monkeypatch.setattr(measurement, "read_cores", lambda: readings.pop(0))
        monkeypatch.setattr(measurement, "MasterRunner", Master)
        events = SimpleNamespace(spawning_complete=Hook(), quitting=Hook(), quit=Hook())
        options = SimpleNamespace(expect_workers="3")
        environment = SimpleNamespace(runner=runner, events=events, parsed_options=options, process_exit_code=None)
        made = Window(cast(Environment, environment), warm_up=2.0, seconds=5.0)
        assert environment.process_exit_code == 0
        return SimpleNamespace(window=made, environment=environment, slept=slept)

    return start


def test_window_ends_when_all_processes_have_replied(window):
    runner = Runner(workers=2)
    parts = [Part(seconds, 0.0, None, 0.0, ()) for seconds in (5.0, 5.1)]
    found = window(runner, then=parts)
    found.window._measure()
    assert runner.sent == [("socketlab_window", "begin"), ("socketlab_window", "end")]
    assert found.slept == [2.0, 5.0, 0.05, 0.05]
    assert runner.quits == 1
    assert found.window._parts == parts
    assert found.window._cores == (CoreTime(4.5, 0.25),)
    # After the warm-up of 2 s.
    assert found.window._began == 102.0


def test_course_has_a_last_row_at_the_end_of_the_window(window, monkeypatch):
    """Its seconds count from the begin of the window, which the clock of the window gives."""
    recorder = Recorder()
    began: list[object] = []
    recorder.add(ONE, Tally(answered=3), users=2, in_flight=1)
    monkeypatch.setattr(measurement, "RECORDER", recorder)
    found = window(Runner(), then=[Part(5.0, 0.0, None, 0.0, ())])

    def spawn(task, course):
        began.append((task, course))
        course.sample()
        return SimpleNamespace(kill=lambda: began.append("ended"))

    monkeypatch.setattr(gevent, "spawn", spawn)
    found.window._measure()
    assert began == [(sample_forever, found.window._course), "ended"]
    # The first sample is the base of the second, which is taken after the 5 s of the window.
    ((second, *_, connections),) = found.window._course.rows("one", found.window._began)
    assert (second, connections) == (5.0, 2)


def test_course_of_a_window_keeps_each_second(window, monkeypatch):
    """More than the live page does."""
    recorder = Recorder()
    recorder.add(ONE, Tally(answered=3), users=2, in_flight=1)
    monkeypatch.setattr(measurement, "RECORDER", recorder)
    course = window(Runner()).window._course
    for _ in range(SECONDS + 2):
        gevent.sleep(1.0)
        course.sample()
    assert len(course.rows("one", 100.0)) == SECONDS + 1


def test_worker_without_a_reply_is_given_up_after_ten_seconds(window):
    runner = Runner(workers=1)
    found = window(runner)
    found.window._measure()
    assert sum(found.slept[2:]) == pytest.approx(10.0, abs=0.06)
    assert runner.quits == 1


@pytest.mark.parametrize("cores", [((), ()), (BEGIN, ()), ((), END), (BEGIN * 2, END)])
def test_cores_that_changed_or_were_not_read_are_unknown(window, cores):
    found = window(Runner(), cores=cores, then=[Part(5.0, 0.0, None, 0.0, ())])
    found.window._measure()
    assert found.window._cores == ()


@pytest.mark.parametrize(("runner", "expected"), [(Runner(), 1), (Master(), 3)])
def test_window_without_counts_says_who_is_missing(window, capsys, runner, expected):
    found = window(runner)
    (listener,) = found.environment.events.quitting.listeners
    listener(environment=found.environment, reverse=True)
    assert found.environment.process_exit_code == 1
    missing = f"no counts: {expected} of {expected} load generators did not take part in the whole window\n"
    assert capsys.readouterr().err == missing


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (Part(5.0, 0.0, None, 0.0, ()), "no user had started when the window ended"),
        # It heard of the end only.
        (
            Part(5.0, 0.0, None, None, (Group(ONE, 1, Tally(), 0, 0, Counter()),)),
            "1 of 1 load generators did not take part in the whole window; 1 load generator joined during the window",
        ),
    ],
)
def test_window_whose_counts_give_no_result_says_why(window, capsys, part, why):
    found = window(Runner(), then=[part])
    found.window._measure()
    found.window._miss_counts(found.environment)
    assert (found.environment.process_exit_code, capsys.readouterr().err) == (1, f"no counts: {why}\n")


def test_window_with_counts_says_nothing(window, capsys):
    found = window(Runner(), then=[Part(5.0, 0.0, None, 0.0, (Group(ONE, 1, Tally(), 0, 0, Counter()),))])
    found.window._measure()
    found.window._miss_counts(found.environment)
    assert (found.environment.process_exit_code, capsys.readouterr().err) == (0, "")


def test_window_begins_with_the_first_spawning(window, monkeypatch):
    found = window(Runner())
    spawned: list[object] = []
    monkeypatch.setattr(gevent, "spawn", spawned.append)
    (listener,) = found.environment.events.spawning_complete.listeners
    listener(user_count=1)
    listener(user_count=2)
    assert spawned == [found.window._measure]


@pytest.mark.parametrize(("runner", "expected"), [(Runner(), 1), (Master(), 3)])
def test_window_prints_a_line_per_model(window, monkeypatch, capsys, runner, expected):
    found = LoadResult("a", "tcp", 1.0, 1, 5.0, 7, {}, Histogram())
    asked = []

    def combine(parts, cores, *, expected, began, read_course):
        asked.append((parts, cores, expected, began, read_course("a")))
        return [found, replace(found, model="b")]

    monkeypatch.setattr(measurement, "combine", combine)
    made = window(runner)
    made.window._began = 7.0
    made.window._course = SimpleNamespace(rows=lambda model, begin: ((model, begin),))
    part = Part(1.0, 0.0, None, 0.0, ())
    runner.listeners["socketlab_part"](SimpleNamespace(data=part.encode()), environment=None)
    (listener,) = made.environment.events.quit.listeners
    listener(exit_code=0)
    assert asked == [([part], (), expected, 7.0, (("a", 7.0),))]
    assert LoadResult.find_all(capsys.readouterr().out) == [
        found,
        replace(found, model="b"),
    ]


def test_rate_is_divided_by_users():
    assert rate_shares.divide({"one": 1, "other": 3}) == {"one": 0.25, "other": 0.75}
    assert rate_shares.divide({"one": 0, "other": 0}) == {"one": 0.0, "other": 0.0}
    assert rate_shares.divide({}) == {}


def test_error_of_the_shares_of_a_master_ends_the_run_as_locust_s_own(monkeypatch):
    done: list[object] = []

    def spawn(task, runner):
        done.append((task, runner))
        return SimpleNamespace(link_exception=done.append)

    environment = SimpleNamespace(runner=Master())
    environment.runner.greenlet = SimpleNamespace(spawn=spawn)
    monkeypatch.setattr(rate_shares, "MasterRunner", Master)
    monkeypatch.setattr(rate_shares, "locust_exception_handler", lambda environment: ("handler", environment))
    rate_shares.attach(cast(Environment, environment))
    assert done == [(rate_shares._send_shares, environment.runner), ("handler", environment)]


def test_master_tells_a_share_when_it_has_changed(monkeypatch):
    sent: list[tuple[str, float, str]] = []
    clients = SimpleNamespace(
        spawning=[SimpleNamespace(id="one", user_count=1)], running=[SimpleNamespace(id="other", user_count=1)]
    )
    runner = SimpleNamespace(clients=clients, send_message=lambda *message: sent.append(message))
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            clients.running[0].user_count = 3
        if len(pauses) == 3:
            raise gevent.GreenletExit

    monkeypatch.setattr(gevent, "sleep", sleep)
    with pytest.raises(gevent.GreenletExit):
        rate_shares._send_shares(runner)
    # At once, not again while nothing changes, and then both.
    shares = [(0.5, "one"), (0.5, "other"), (0.25, "one"), (0.75, "other")]
    assert sent == [("socketlab_share", *told) for told in shares]
    assert pauses == [0.25] * 3


def test_worker_sends_nothing_until_it_has_a_share(monkeypatch):
    shares: list[float] = []
    monkeypatch.setattr(Engine, "of", lambda environment: SimpleNamespace(share=shares.append))
    monkeypatch.setattr(rate_shares, "WorkerRunner", Runner)
    worker = Runner()
    rate_shares.attach(cast(Environment, SimpleNamespace(runner=worker)))
    assert shares == [0.0]
    worker.listeners["socketlab_share"](msg=SimpleNamespace(data=0.4), environment=None)
    assert shares == [0.0, 0.4]


def test_runner_without_workers_keeps_the_whole_rate(monkeypatch):
    monkeypatch.setattr(Engine, "of", lambda environment: pytest.fail("it has no share"))
    rate_shares.attach(cast(Environment, SimpleNamespace(runner=Runner())))


class Worker(runners.WorkerRunner):
    def __init__(self):
        """Connect to no master."""

    def __del__(self):
        """Leave nothing to clean up."""


@pytest.mark.parametrize(("runner", "said"), [(Worker(), [Joined()]), (Runner(), [])])
def test_only_a_worker_says_that_it_has_joined(capsys, runner, said):
    joining.announce(cast(Environment, SimpleNamespace(runner=runner)), more=1)
    assert [decode(line, Joined) for line in capsys.readouterr().out.splitlines()] == said


def test_worker_that_waits_for_a_core_is_not_given_up():
    """Neither while it runs, nor before it has started its users."""
    assert runners.HEARTBEAT_LIVENESS == 10
    assert runners.MasterRunner._wait_for_workers_report_after_ramp_up(cast(runners.MasterRunner, None)) == 10.0
