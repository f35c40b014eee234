"""Run a plan against running models, and store the result of each step at once.

Stored steps are not measured again: an interrupted run continues where it stopped.
"""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from lab.base.errors import LabError
from lab.base.messages import build
from lab.base.units import encode_cores
from lab.experiments.bench import warm_up
from lab.experiments.bench.independent_clients import CLIENTS, CONNECTIONS, IndependentClient
from lab.experiments.bench.plan import (
    CLOSED,
    FIXED,
    OPEN_SHARES,
    OURS,
    WARM_UP,
    WORKLOADS,
    BenchWorkload,
    Phase,
    Plan,
    Step,
    is_control,
    list_cases,
    list_levels,
    list_steps,
    shuffle,
)
from lab.experiments.bench.sweep import Knee, Level, find_knee, is_over, is_telling, make_level
from lab.experiments.bench.warm_up import WARM_UP_VISITS
from lab.experiments.conformance.results import ModelResult
from lab.experiments.records import key_of_check, read_measurement, record_failure, record_measurement
from lab.experiments.store import Run
from lab.load.cores import Pinning, pin_servers
from lab.load.generator import PersistentGenerator
from lab.load.measure import MeteredServers, measure
from lab.load.measurement import Measurement
from lab.load.presets import Preset, find_preset
from lab.metrics.verdict import Limit
from lab.servers.backend import Backend, Servers
from lab.servers.catalogue import Model

# After this many failures a model is not tried again: each failure may take a minute.
_MAX_FAILURES = 2

# In an open loop a request needs a free connection. The most connections of an open step.
_OPEN_USERS = 64

# Of an independent client: fewer take no time that could be measured.
_LEAST_REQUESTS = 1000

# Timeout of the warm-up of all servers.
_WARM_UP_TIMEOUT = 120.0

CheckModels = Callable[[Backend, Sequence[str]], dict[str, ModelResult]]


@dataclass
class Progress:
    """Reports each step and the remaining time.

    Args:
        say: prints a line.
        total: the number of steps, as far as it is known.
    """

    say: Callable[[str], None]
    total: int = 0
    _done: int = 0
    _took: list[float] = field(default_factory=list)

    def skip(self, count: int = 1) -> None:
        """Subtract steps that need not be measured."""
        self.total -= count

    def step(self, text: str, seconds: float) -> None:
        self._done += 1
        self._took.append(seconds)
        left = max(self.total - self._done, 0) * sum(self._took) / len(self._took)
        self.say(f"{self._done} of {self.total}, {show_time(left)} left  {text}")


def show_time(seconds: float) -> str:
    """Format a time as `48 s` or `9 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


@dataclass
class Runner:
    """One run of a benchmark.

    Args:
        control: runs the control server; None without one.
        pinning: the cores of both sides; None on a machine with one core.
    """

    run: Run
    plan: Plan
    backend: Backend
    control: Backend | None
    models: Mapping[str, Model]
    pinning: Pinning | None
    progress: Progress
    _failures: Counter[str] = field(default_factory=Counter)
    # By project: a generator reaches only its own network.
    _generators: dict[str, PersistentGenerator] = field(default_factory=dict)
    _servers: dict[str, MeteredServers] = field(default_factory=dict)

    def measure_all(self, check: CheckModels) -> None:
        """Measure every step that is not in the store.

        Args:
            check: runs the conformance suite against running models.

        Raises:
            StoreError: a result cannot be stored.
            LabError: the suite or the warm-up failed.
        """
        with contextlib.ExitStack() as stack:
            for backend, _ in self._backends(self.plan.models):
                self._generators[backend.project] = stack.enter_context(PersistentGenerator(backend.helpers))
                self._servers[backend.project] = MeteredServers(backend)
            sound = self.check(check)
            began, before = time.monotonic(), _own_cpu_seconds(self.backend)
            self._measure_all(sound)
            own = (_own_cpu_seconds(self.backend) - before) / (time.monotonic() - began)
        self.run.finish({"at": _now(), "own_cores": own})

    def _measure_all(self, sound: Sequence[str]) -> None:
        cases = list_cases(self.plan, {name: self.models[name] for name in sound})
        self.progress.total = self._count(cases)
        measured = list(dict.fromkeys([*sound, *filter(None, [self.plan.generator_limit])]))
        self._pin(measured)
        self._warm_up_servers(measured)
        knees = self._sweep(cases)
        for number in self.plan.order_rounds():
            if number <= self.plan.rounds:
                self._cross_check(number, sound)
            for step in shuffle(self.plan, list_steps(self.plan, number, cases)):
                knee = knees.get((step.workload, step.server))
                if knee is None:
                    self._keep_failure(step, "no level of the sweep was served, so there is no knee")
                else:
                    self._measure(step, knee)

    def check(self, check: CheckModels) -> list[str]:
        """Return the models that pass the conformance suite, and store the results of all."""
        unchecked = [name for name in self.plan.models if not self.run.has(key_of_check(name))]
        if unchecked:
            self.progress.say(f"conformance suite: {len(unchecked)} models")
            found = check(self.backend, unchecked)
            for name in unchecked:
                self.run.keep(key_of_check(name), asdict(found.get(name, ModelResult(0, 0))))
        kept = {name: build(ModelResult, self.run.read(key_of_check(name))) for name in self.plan.models}
        return [name for name, item in kept.items() if item.passed and not item.failed]

    def _count(self, cases: Sequence[tuple[str, str]]) -> int:
        swept = [(workload, model) for workload, model in cases if not is_control(model)]
        levels = sum(len(self._levels(workload, model)) for workload, model in swept if self.plan.sweeps(workload))
        checks = sum(1 + len(clients) for _, _, clients in self._list_cross_checked(self.plan.models))
        independent = checks * self.plan.rounds
        return levels + sum(len(list_steps(self.plan, n, cases)) for n in self.plan.order_rounds()) + independent

    def _levels(self, workload: str, model: str) -> list[int]:
        return list_levels(self.plan, WORKLOADS[workload], self.models[model])

    def _backends(self, names: Sequence[str]) -> Iterator[tuple[Backend, list[str]]]:
        yield self.backend, list(names)
        if self.control and self.plan.control in names:
            yield self.control, [str(self.plan.control)]

    def _pin(self, names: Sequence[str]) -> None:
        if self.pinning:
            for backend, found in self._backends(names):
                pin_servers(backend, found, self.pinning)

    def _warm_up_servers(self, names: Sequence[str]) -> None:
        """Give every server the same number of first connections."""
        asked = {
            name: next(service for service in warm_up.ARGUMENTS if service in self.models[name].services)
            for name in names
        }
        for backend, found in self._backends(names):
            targets = [
                f"{item.service}={item.address}"
                for item in backend.targets()
                if item.model in found and (item.service, item.transport) == (asked[item.model], "tcp")
            ]
            self.progress.say(f"warm-up: {WARM_UP_VISITS} connections to each server")
            done = backend.helpers.run(
                ["python", "-m", warm_up.__name__, str(WARM_UP_VISITS), *targets],
                capture=True,
                timeout=_WARM_UP_TIMEOUT,
            )
            if done.returncode:
                raise LabError(f"the warm-up failed: {done.stderr.strip()[-500:]}")
            self.run.keep(f"{WARM_UP}/{_now()}-{backend.project}", {"visits": json.loads(done.stdout)})

    def _sweep(self, cases: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Knee]:
        """Return the knee of each case. Each level measures all cases, in shuffled order."""
        levels = {
            (workload, model): self._levels(workload, model) for workload, model in cases if not is_control(model)
        }
        knees = {case: Knee(found[0], 0.0, found[0]) for case, found in levels.items() if not self.plan.sweeps(case[0])}
        swept: dict[tuple[str, str], list[Level]] = {case: [] for case in levels if case not in knees}
        for users in sorted({users for case in swept for users in levels[case]}):
            active = [Step(Phase.SWEEP, users, *case) for case in swept if users in levels[case]]
            for step in shuffle(self.plan, active):
                case = (step.workload, step.model)
                if is_over(swept[case]):
                    self.progress.skip()
                    continue
                measured = self._measure(step, Knee(users, 0.0, users))
                if measured and not is_telling(measured):
                    continue  # the next level may say more
                swept[case].append(Level(users, 0.0, False) if measured is None else make_level(users, measured))
        return knees | {case: knee for case, found in swept.items() if (knee := find_knee(found))}

    def _measure(self, step: Step, knee: Knee) -> Measurement | None:
        """Measure a step, or read it from the store; None if it failed, and the reason is stored."""
        if self.run.has(step.key):
            self.progress.skip()
            return read_measurement(self.run.read(step.key))
        if self._failures[step.server] >= _MAX_FAILURES:
            self._keep_failure(step, f"not tried again after {_MAX_FAILURES} failures")
            return None
        workload, model = WORKLOADS[step.workload], self.models[step.server]
        backend = self.control if step.is_control and self.control else self.backend
        load = self._choose_load(step, workload, knee)
        began = time.monotonic()
        try:
            found = measure(
                backend,
                model,
                load,
                pinning=self.pinning,
                generator=self._generators[backend.project],
                servers=self._servers[backend.project],
            )
        except LabError as error:
            self._failures[step.server] += 1
            self._keep_failure(step, f"{error}{self._describe_end(backend, step.server)}")
            self._restart(backend, step.server)
            return None
        took = time.monotonic() - began
        if found.verdict.bound is Limit.DISTURBED:
            self._keep_failure(step, f"{found.verdict.bound}: {found.verdict.reason}")
            return None
        found = found.rename(step.model)
        if not found.answered:
            self._restart(backend, step.server)
        self.run.keep(
            step.key,
            record_measurement(found, at=_now(), took=took, preset=load.name, users=load.spec.users),
        )
        self.progress.step(f"{step}: {found.verdict.bound}", took)
        return found

    def _choose_load(self, step: Step, workload: BenchWorkload, knee: Knee) -> Preset:
        name, users, rate = workload.closed, knee.users, None
        if step.phase is Phase.ROUND and step.mode != CLOSED:
            held = workload.asked.holds_connection
            users = min(knee.most_users, _OPEN_USERS) if held else _OPEN_USERS
            name = workload.open
            rate = workload.fixed_rate if step.mode == FIXED else max(knee.rate * OPEN_SHARES[step.mode], 1.0)
        return find_preset(name).change(
            users=users,
            rate=rate,
            duration=self.plan.seconds,
            warm_up=self.plan.warm_up,
            transport=workload.over,
        )

    def _keep_failure(self, step: Step, reason: str) -> None:
        if self.run.has(step.key):
            self.progress.skip()
            return
        self.run.keep(step.key, record_failure(reason, at=_now()))
        self.progress.skip()
        self.progress.say(f"{step.key}: {reason}")

    def _describe_end(self, servers: Servers, model: str) -> str:
        state = next((item for item in servers.state() if item.model == model), None)
        if state is None or state.state == "running":
            return ""
        last = " / ".join(state.last_lines[-3:]) or "nothing"
        return f"; the server exited with code {state.exit_code}, its last lines: {last}"

    def _restart(self, servers: Servers, model: str) -> None:
        """Restart a server that has ended or does not answer, so that one failed step does not fail the rest."""
        try:
            servers.restart(model)
            if self.pinning:
                pin_servers(servers, [model], self.pinning)
        except LabError as error:
            self._failures[model] = _MAX_FAILURES
            self.progress.say(f"{model} cannot be restarted: {error}")

    def _list_cross_checked(self, names: Sequence[str]) -> list[tuple[str, str, list[IndependentClient]]]:
        """Return (workload, server, clients) of the cross-check.

        PING is checked in each run, and HTTP in those with a workload of HTTP: with the control's model, and the server
        that shows the generator's limit.
        """
        known = (*names, self.plan.generator_limit)
        servers = [name for name in (self.plan.control, self.plan.generator_limit) if name and name in known]
        measured = {"command", *(WORKLOADS[name].asked.service for name in self.plan.workloads)}
        clients: dict[str, list[IndependentClient]] = {}
        for client in CLIENTS:
            if WORKLOADS[client.workload].asked.service in measured:
                clients.setdefault(client.workload, []).append(client)
        return [
            (workload, name, found)
            for workload, found in clients.items()
            for name in servers
            if WORKLOADS[workload].is_for(self.models[name])
        ]

    def _cross_check(self, number: int, names: Sequence[str]) -> None:
        """Measure the same cases by our generator and by independent clients, interleaved."""
        for workload, name, clients in self._list_cross_checked(names):
            ours = Step(Phase.CROSS_CHECK, number, workload, name, OURS)
            found = self._measure(ours, Knee(CONNECTIONS, 0.0, CONNECTIONS))
            for client in clients:
                theirs = replace(ours, mode=client.name)
                if self.run.has(theirs.key) or found is None:
                    self.progress.skip()
                    continue
                began = time.monotonic()
                try:
                    record = self._run_independent(client, name, requests=int(found.rate * self.plan.seconds))
                except LabError as error:
                    record = record_failure(str(error))
                self.run.keep(theirs.key, {"at": _now(), **record})
                self.progress.step(str(theirs), time.monotonic() - began)

    def _run_independent(self, client: IndependentClient, name: str, *, requests: int) -> dict[str, Any]:
        """Measure a server by a load generator of others, all of them in C or Go.

        Args:
            requests: as many as ours had answered, or more.

        Raises:
            LabError: it is not installed, or gave no result.
        """
        requests = max(requests, _LEAST_REQUESTS)
        server = self._servers[self.backend.project].open([name])[name]
        wanted = WORKLOADS[client.workload].asked.service, "tcp"
        address = next(item.address for item in server.listeners if (item.service, item.transport) == wanted)
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        command = list(client.make_command(host, port, requests, self.plan.seconds))
        if self.pinning:
            command = ["taskset", "--cpu-list", encode_cores(self.pinning.generator), *command]
        before = server.meter.read().cpu_seconds
        done = self.backend.helpers.run(command, capture=True, timeout=60)
        after = server.meter.read().cpu_seconds
        found = client.read(done.stdout)
        if done.returncode or found is None or found.requests == 0:
            raise LabError(f"{client.name} gave no result: {(done.stderr or done.stdout).strip()[-300:]}")
        answered = requests if found.requests is None else found.requests
        cpu = None if before is None or after is None else (after - before) * 1e6 / answered
        return {"rate": found.rate, "server_cpu_us": cpu, "command": command}


def _own_cpu_seconds(servers: Servers) -> float:
    """Return the CPU seconds of measuring itself: of this process, its meters, and its Docker clients."""
    seconds = time.process_time()
    if not servers.in_containers:
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
