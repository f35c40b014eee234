"""Runs a plan against models that are up, and keeps what comes of each step as soon as it is there.

What is in the store already is not measured again: a run that was interrupted goes on where it was.
"""

import contextlib
import csv
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from lab.base.errors import LabError
from lab.experiments.bench.findings import read_measurement
from lab.experiments.bench.plan import (
    AGAIN,
    CLOSED,
    FIXED,
    INDEPENDENT,
    WORKS,
    Plan,
    Step,
    Work,
    list_cells,
    list_levels,
    list_steps,
    name_round,
    shuffle,
)
from lab.experiments.bench.sweep import Knee, Level, find_knee, is_over, make_level
from lab.experiments.bench.warm_up import VISITS
from lab.experiments.conformance.results import Check
from lab.experiments.store import Run
from lab.load.cores import Pinning, encode_cores, pin_servers
from lab.load.generator import StandingGenerator
from lab.load.measure import MeteredServers, measure
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from lab.metrics.verdict import Limit
from lab.servers.backend import Backend
from lab.servers.catalogue import Model

# A model that could not be measured this often is not tried again: each try may take a minute until it is given up.
_MOST_FAILURES = 2

# In an open loop a request needs a free connection: as many as were served, but no more than this.
_OPEN_USERS = 64

_INDEPENDENT_USERS = 16
_REDIS_TEST = "ping_mbulk"

# A server that forgets nothing and answers at once needs no longer than this for its visits.
_PRELUDE_SECONDS = 120.0

CheckModels = Callable[[Backend, Sequence[str]], dict[str, Check]]


@dataclass
class Progress:
    """Says what is being measured, and how long the rest will take.

    Args:
        say: takes a line.
        total: steps there are, as far as is known now.
    """

    say: Callable[[str], None]
    total: int = 0
    _done: int = 0
    _took: list[float] = field(default_factory=list)

    def skip(self, count: int = 1) -> None:
        """So many steps need not be measured."""
        self.total -= count

    def step(self, text: str, seconds: float) -> None:
        """One step is done."""
        self._done += 1
        self._took.append(seconds)
        left = max(self.total - self._done, 0) * sum(self._took) / len(self._took)
        self.say(f"{self._done} of {self.total}, {show_time(left)} left  {text}")


def show_time(seconds: float) -> str:
    """`48 s` or `9 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


@dataclass
class Runner:
    """One run of a benchmark.

    Args:
        run: where it is kept.
        plan: what is to be measured.
        backend: where the models are up.
        twin: where a second server of the plan's twin is up; None if there is none.
        models: of the plan, by name.
        pinning: the cores of both sides; None where there is only one.
        progress: is told of each step.
    """

    run: Run
    plan: Plan
    backend: Backend
    twin: Backend | None
    models: Mapping[str, Model]
    pinning: Pinning | None
    progress: Progress
    _failures: Counter[str] = field(default_factory=Counter)
    # By project: a generator loads what is in its own network.
    _standing: dict[str, StandingGenerator] = field(default_factory=dict)
    _servers: dict[str, MeteredServers] = field(default_factory=dict)

    def measure_all(self, check: CheckModels) -> None:
        """Everything that is not in the store yet.

        Args:
            check: holds running models to the conformance suite.

        Raises:
            StoreError: it cannot be kept.
            LabError: the suite, or the machine, could not do its part.
        """
        with contextlib.ExitStack() as stack:
            for backend, _ in self._backends(self.plan.models):
                self._standing[backend.project] = stack.enter_context(StandingGenerator(backend))
                self._servers[backend.project] = MeteredServers(backend)
            sound = self.check(check)
            began, before = time.monotonic(), _own_cpu_seconds(self.backend)
            self._measure_all(sound)
            own = (_own_cpu_seconds(self.backend) - before) / (time.monotonic() - began)
        self.run.finish({"at": _now(), "own_cores": own})

    def _measure_all(self, sound: Sequence[str]) -> None:
        cells = list_cells(self.plan, {name: self.models[name] for name in sound})
        self.progress.total = self._count(cells)
        measured = list(dict.fromkeys([*sound, *filter(None, [self.plan.ceiling])]))
        self._pin(measured)
        self._give_history(measured)
        knees = self._sweep(cells)
        for number in self.plan.order_rounds():
            if number <= self.plan.rounds:
                self._check_independently(number, sound)
            for step in shuffle(self.plan, name_round(number), list_steps(self.plan, number, cells)):
                knee = knees.get((step.work, step.server))
                if knee is None:
                    self._keep_failure(step, "no number of connections was served: there is no knee to measure at")
                else:
                    self._measure(step, knee)

    def check(self, check: CheckModels) -> list[str]:
        """Conformance first: the models that hold. What the others fail by is kept."""
        open_ones = [name for name in self.plan.models if not self.run.has(f"conformance/{name}")]
        if open_ones:
            self.progress.say(f"conformance: the same tests for each of {len(open_ones)} models")
            found = check(self.backend, open_ones)
            for name in open_ones:
                item = found.get(name, Check(0, 0))
                self.run.keep(
                    f"conformance/{name}",
                    {
                        "passed": item.passed,
                        "failed": item.failed,
                        "xfailed": item.expected_failures,
                        "failures": item.failures,
                    },
                )
        kept = {name: self.run.read(f"conformance/{name}") for name in self.plan.models}
        return [name for name, item in kept.items() if item["passed"] and not item["failed"]]

    def _count(self, cells: Sequence[tuple[str, str]]) -> int:
        swept = [(work, model) for work, model in cells if not model.startswith(AGAIN)]
        levels = sum(len(self._levels(work, model)) for work, model in swept if self.plan.sweeps(work))
        independent = 2 * len(self._independent(self.plan.models)) * self.plan.rounds
        return levels + sum(len(list_steps(self.plan, n, cells)) for n in self.plan.order_rounds()) + independent

    def _levels(self, work: str, model: str) -> list[int]:
        return list_levels(self.plan, WORKS[work], self.models[model])

    def _backends(self, names: Sequence[str]) -> Iterator[tuple[Backend, list[str]]]:
        yield self.backend, list(names)
        if self.twin and self.plan.twin in names:
            yield self.twin, [str(self.plan.twin)]

    def _pin(self, names: Sequence[str]) -> None:
        if self.pinning:
            for backend, found in self._backends(names):
                pin_servers(backend, found, self.pinning)

    def _give_history(self, names: Sequence[str]) -> None:
        """Every server that is up now gets the same first visitors, whatever was measured before."""
        asked = {name: "command" if "command" in self.models[name].services else "echo" for name in names}
        for backend, found in self._backends(names):
            targets = [
                f"{item.service}={item.address}"
                for item in backend.targets()
                if item.model in found and (item.service, item.transport) == (asked[item.model], "tcp")
            ]
            self.progress.say(f"the same history for each: {VISITS} visits")
            done = backend.run(
                ["python", "-m", "lab.experiments.bench.warm_up", str(VISITS), *targets],
                capture=True,
                timeout=_PRELUDE_SECONDS,
            )
            if done.returncode:
                raise LabError(f"the visits before the measurement failed: {done.stderr.strip()[-500:]}")
            self.run.keep(f"history/{_now()}-{backend.project}", {"visits": json.loads(done.stdout)})

    def _sweep(self, cells: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Knee]:
        """The knee of each cell: level by level, all cells shuffled in each."""
        levels = {(work, model): self._levels(work, model) for work, model in cells if not model.startswith(AGAIN)}
        knees = {cell: Knee(found[0], 0.0, found[0]) for cell, found in levels.items() if not self.plan.sweeps(cell[0])}
        swept: dict[tuple[str, str], list[Level]] = {cell: [] for cell in levels if cell not in knees}
        for users in sorted({users for cell in swept for users in levels[cell]}):
            active = [Step("sweep", *cell, str(users)) for cell in swept if users in levels[cell]]
            for step in shuffle(self.plan, f"sweep/{users}", active):
                cell = (step.work, step.model)
                if is_over(swept[cell]):
                    self.progress.skip()
                    continue
                measured = self._measure(step, Knee(users, 0.0, users))
                if measured and measured.verdict.bound is Limit.INCONSISTENT:
                    continue  # it says nothing of the server; the next level may
                swept[cell].append(Level(users, 0.0, False) if measured is None else make_level(users, measured))
        return knees | {cell: knee for cell, found in swept.items() if (knee := find_knee(found))}

    def _measure(self, step: Step, knee: Knee) -> Measurement | None:
        """Make a step, or take it from the store. None: it could not be made, and the reason is kept."""
        if self.run.has(step.key):
            self.progress.skip()
            return read_measurement(self.run.read(step.key))
        if self._failures[step.server] >= _MOST_FAILURES:
            self._keep_failure(step, f"not tried again after {_MOST_FAILURES} failures")
            return None
        work, model = WORKS[step.work], self.models[step.server]
        backend = self.twin if step.model.startswith(AGAIN) and self.twin else self.backend
        scenario, users, rate = self._ask(step, work, knee)
        began = time.monotonic()
        try:
            found = measure(
                backend,
                model,
                scenario,
                users=users,
                seconds=self.plan.seconds,
                warm_up=self.plan.warm_up,
                rate=rate,
                transport=work.over.value,
                pinning=self.pinning,
                standing=self._standing[backend.project],
                servers=self._servers[backend.project],
            )
        except LabError as error:
            self._failures[step.server] += 1
            self._keep_failure(step, f"{error}{self._describe_end(backend, step.server)}")
            self._revive(backend, step.server)
            return None
        took = time.monotonic() - began
        if found.verdict.bound is Limit.DISTURBED:
            self._keep_failure(step, f"{found.verdict.bound}: {found.verdict.reason}")
            return None
        found = replace(found, model=step.model)
        if not found.answered:
            self._revive(backend, step.server)
        self.run.keep(
            step.key,
            {"at": _now(), "took": took, "scenario": scenario, "users": users, "measurement": found.as_json()},
        )
        self.progress.step(f"{step.phase}, {step.work}, {step.model}, {step.way}: {found.verdict.bound}", took)
        return found

    def _ask(self, step: Step, work: Work, knee: Knee) -> tuple[str, int, float | None]:
        """Scenario, connections and rate of a step."""
        if step.phase in ("sweep", INDEPENDENT) or step.way == CLOSED:
            return work.closed, knee.users, None
        held = find_preset(work.closed).workload.holds_connection
        users = min(knee.most_users, _OPEN_USERS) if held else _OPEN_USERS
        if step.way == FIXED:
            return work.open, users, work.fixed_rate
        share = int(step.way.removeprefix("open-")) / 100
        return work.open, users, max(knee.rate * share, 1.0)

    def _keep_failure(self, step: Step, reason: str) -> None:
        if self.run.has(step.key):
            self.progress.skip()
            return
        self.run.keep(step.key, {"at": _now(), "failure": reason})
        self.progress.skip()
        self.progress.say(f"{step.key}: {reason}")

    def _describe_end(self, backend: Backend, model: str) -> str:
        state = next((item for item in backend.state() if item.model == model), None)
        if state is None or state.state == "running":
            return ""
        last = " / ".join(state.last_lines[-3:]) or "nothing"
        return f"; the server has ended (exit code {state.exit_code}), it said: {last}"

    def _revive(self, backend: Backend, model: str) -> None:
        """A server that has ended, or answers nobody, is started anew: one bad step need not cost all the others."""
        try:
            backend.restart(model)
            if self.pinning:
                pin_servers(backend, [model], self.pinning)
        except LabError as error:
            self._failures[model] = _MOST_FAILURES
            self.progress.say(f"{model} does not start again: {error}")

    def _independent(self, names: Sequence[str]) -> list[str]:
        """Whom somebody else's client asks too: the twin, and the server that shows what the generator can do."""
        asked = [name for name in (self.plan.twin, self.plan.ceiling) if name in (*names, self.plan.ceiling)]
        return [name for name in asked if name and WORKS["ping"].is_for(self.models[name])]

    def _check_independently(self, number: int, names: Sequence[str]) -> None:
        """The same cell by our generator and by redis-benchmark, in turns."""
        for name in self._independent(names):
            step = Step(INDEPENDENT, "ping", name, f"ours-{number}")
            ours = self._measure(step, Knee(_INDEPENDENT_USERS, 0.0, _INDEPENDENT_USERS))
            key = f"{INDEPENDENT}/ping/{name}/redis-benchmark-{number}"
            if self.run.has(key) or ours is None:
                self.progress.skip()
                continue
            began = time.monotonic()
            try:
                record: dict[str, Any] = self._ask_redis(name, requests=max(int(ours.rate * self.plan.seconds), 1000))
            except LabError as error:
                record = {"failure": str(error)}
            self.run.keep(key, {"at": _now(), **record})
            self.progress.step(f"{INDEPENDENT}, ping, {name}, redis-benchmark", time.monotonic() - began)

    def _ask_redis(self, name: str, *, requests: int) -> dict[str, Any]:
        """PING by redis-benchmark: a client in C, of other people.

        Raises:
            LabError: it is not there, or gave no result.
        """
        server = self._servers[self.backend.project].open([name])[name]
        address = next(
            item.address for item in server.listeners if (item.service, item.transport) == ("command", "tcp")
        )
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        command = ["redis-benchmark", "-h", host, "-p", port, "-t", _REDIS_TEST, "--csv"]
        command += ["-c", str(_INDEPENDENT_USERS), "-n", str(requests)]
        if self.pinning:
            command = ["taskset", "--cpu-list", encode_cores(self.pinning.generator), *command]
        before = server.meter.read().cpu_seconds
        done = self.backend.run(command, capture=True, timeout=60)
        after = server.meter.read().cpu_seconds
        rows = [row for row in csv.DictReader(io.StringIO(done.stdout)) if (row.get("test") or "").startswith("PING")]
        if done.returncode or not rows:
            raise LabError(f"redis-benchmark gave no result: {(done.stderr or done.stdout).strip()[-300:]}")
        cpu = None if before is None or after is None else (after - before) * 1e6 / requests
        return {"rate": float(rows[0]["rps"]), "server_cpu_us": cpu, "command": command}


def _own_cpu_seconds(backend: Backend) -> float:
    """What measuring costs itself: this process with its meters, and its clients of Docker."""
    seconds = time.process_time()
    if backend.name != "docker":
        return seconds  # its children are the servers and the generator
    ended = os.times()
    seconds += ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            seconds += times.user + times.system
    return seconds


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ")
