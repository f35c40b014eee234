"""A measured window: warm up, count, write a line of JSON for each model, end.

Each process that generates load (this one, or each worker) is told when the window begins and ends, and replies with
its counts. The process with the `Window` combines them. Both directions use Locust's messages; a runner without workers
sends them to itself.
"""

import sys
from argparse import Namespace
from collections import Counter
from time import monotonic, process_time
from typing import Any, cast

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, Runner

from lab.metrics.cgroup import read_throttled
from loadtests.course import Course, sample_forever
from loadtests.parts import BEAT_SECONDS, CoreTime, Group, Part, Pulse, combine, find_disturbances, read_cores
from loadtests.sockets.engine import Connection, Engine
from loadtests.sockets.recorder import RECORDER, Series, Tally

_ORDER, _PART = "socketlab_window", "socketlab_part"
_BEGIN, _END = "begin", "end"

# Seconds for a worker to send its counts.
_REPLY_SECONDS = 10.0
_PAUSE = 0.05


class WindowCounter:
    """Counts the window in one process."""

    def __init__(self, environment: Environment) -> None:
        self._engine = Engine.of(environment)
        self._runner = cast(Runner, environment.runner)
        self._stats = environment.stats
        self._before: dict[Connection, int] = {}
        self._early: dict[Series, Counter[str]] = {}
        self._pulse: Pulse | None = None
        self._beating: Any = None
        self._started = self._cpu = 0.0
        self._throttled: float | None = None
        self._runner.register_message(_ORDER, self._obey)

    def _obey(self, msg: Any, **_: object) -> None:
        if msg.data == _BEGIN:
            self._engine.flush()
            # Again: the first takes milliseconds, which are not part of the window. The second has nothing to count.
            self._started, self._cpu, self._throttled = self._engine.flush(), process_time(), read_throttled()
            self._early = {series: tally.failures for series, tally in RECORDER.tallies().items()}
            RECORDER.reset()
            self._stats.reset_all()
            self._before = {
                connection: connection.answered for group in self._engine.groups for connection in group.connections
            }
            self._pulse = Pulse()
            self._beating = gevent.spawn(self._beat, self._pulse)
        else:
            # Before the abort, which counts on in the same tallies.
            part = self._count().encode()
            # Stop the load, so that the server uses no more CPU time after the window.
            self._engine.abort()
            self._runner.send_message(_PART, part)

    @staticmethod
    def _beat(pulse: Pulse) -> None:
        while True:
            gevent.sleep(BEAT_SECONDS)
            pulse.beat()

    def _count(self) -> Part:
        self._engine.count_backlog_as_dropped()
        cpu = process_time() - self._cpu
        seconds = self._engine.flush() - self._started
        before, after = self._throttled, read_throttled()
        throttled = None if before is None or after is None else after - before
        if self._pulse:
            self._pulse.beat()
            self._beating.kill(block=False)
        tallies = RECORDER.tallies()
        groups = tuple(
            Group(
                group.series,
                group.exchange.depth,
                tallies.get(group.series, Tally()),
                sum(
                    connection.group is group and connection.answered == count
                    for connection, count in self._before.items()
                ),
                group.answered_in_all,
                self._early.get(group.series, Counter()),
            )
            for group in self._engine.groups
        )
        return Part(seconds, cpu, throttled, None if self._pulse is None else self._pulse.longest, groups)


class Window:
    """Measures the window, prints the results and ends the run."""

    def __init__(self, environment: Environment, *, warm_up: float, seconds: float) -> None:
        # Not the number when the window begins: a worker that was lost in the warm-up would not be missed.
        options = cast(Namespace, environment.parsed_options)
        self._expected = int(options.expect_workers) if isinstance(environment.runner, MasterRunner) else 1
        self._runner = cast(Any, environment.runner)  # typed as if a message were a dict
        self._warm_up = warm_up
        self._seconds = seconds
        self._parts: list[Part] = []
        self._cores: tuple[CoreTime, ...] = ()
        self._started = False
        self._began = 0.0
        self._course = Course(RECORDER, kept=None, now=monotonic)
        self._runner.register_message(_PART, self._receive)
        events = cast(Any, environment.events)  # not annotated by Locust
        events.spawning_complete.add_listener(self._spawned)
        events.quitting.add_listener(self._miss_counts)
        events.quit.add_listener(self._write)
        # Failed exchanges are part of the result. Another exit code than 0 means that the load could not run.
        environment.process_exit_code = 0

    def _spawned(self, **_: object) -> None:
        # A shape spawns more than once.
        if not self._started:
            self._started = True
            gevent.spawn(self._measure)

    def _measure(self) -> None:
        gevent.sleep(self._warm_up)
        self._runner.send_message(_ORDER, _BEGIN)
        self._began, before = monotonic(), read_cores()
        sampling = gevent.spawn(sample_forever, self._course)
        gevent.sleep(self._seconds)
        sampling.kill()
        # The end of the window is seldom a whole second after its begin.
        self._course.sample()
        after = read_cores()
        # A core that was added or removed meanwhile shifts the numbers of the others.
        if len(before) == len(after):
            self._cores = tuple(end - begin for begin, end in zip(before, after, strict=True))
        self._runner.send_message(_ORDER, _END)
        deadline = monotonic() + _REPLY_SECONDS
        # Do not wait for a worker that the runner has lost.
        while len(self._parts) < self._runner.worker_count and monotonic() < deadline:
            gevent.sleep(_PAUSE)
        self._runner.quit()

    def _receive(self, msg: Any, **_: object) -> None:
        self._parts.append(Part.decode(msg.data))

    def _miss_counts(self, environment: Environment, **_: object) -> None:
        whole = [part for part in self._parts if part.stalled is not None]
        if not any(part.groups for part in whole):
            # Locust says nothing if its last worker misses heartbeats (it was lost, or too busy to send them), and
            # takes a load for complete whose users have not started.
            reasons = [*find_disturbances(self._parts, self._expected)]
            reasons += ["no user had started when the window ended"] if whole else []
            sys.stderr.write(f"no counts: {'; '.join(reasons)}\n")
            environment.process_exit_code = 1

    def _write(self, **_: object) -> None:
        results = combine(
            self._parts,
            self._cores,
            expected=self._expected,
            began=self._began,
            read_course=lambda model: self._course.rows(model, self._began),
        )
        for found in results:
            sys.stdout.write(f"{found.encode()}\n")
        sys.stdout.flush()
