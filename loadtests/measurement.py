"""A measured window: warm up, count for so many seconds, write a line of JSON for each model, end.

The window is cut out of Locust's own statistics, so its tables and this result are the same numbers.
"""

import json
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from time import perf_counter, process_time
from typing import Any, cast

import gevent
import psutil
from locust.env import Environment

from loadtests.users import SocketUser, request_name

# In front of the result on stdout: Locust and its libraries may write lines of their own.
MARKER = "LOAD-RESULT "


@dataclass(frozen=True, slots=True)
class Result:
    """What one run found of one model.

    Args:
        model, workload: what was loaded with what.
        users: how many it had; each has at most one exchange in flight.
        depth: requests in one exchange.
        seconds: the window, after the warm-up.
        answered: exchanges of the window that came back right.
        failures: the others, by reason.
        mean_us: mean response time in microseconds, None if nothing was answered.
        min_us, max_us: its extremes, unrounded.
        histogram: [microseconds to three digits, count] in rising order: what was answered, and what timed out.
        starved: users that were not answered once during the window.
        generator_cpu: CPU seconds of this process in the window, for all models together.
        machine_cpu: CPU seconds of everything on this machine in the window, whoever used them; None where the system
            does not say. A container sees the whole machine's account.
        cores: what the machine has.
        versions: of what generated the load.
        answered_in_all: exchanges since the process started, warm-up included: what the server's CPU is divided by.
    """

    model: str
    workload: str
    users: int
    depth: int
    seconds: float
    answered: int
    failures: dict[str, int]
    mean_us: float | None
    min_us: float | None
    max_us: float | None
    histogram: list[tuple[float, int]]
    starved: int
    generator_cpu: float
    machine_cpu: float | None
    cores: int | None
    versions: dict[str, str]
    answered_in_all: int = 0


class Window:
    """Takes the measurement, and ends the run."""

    def __init__(self, environment: Environment, *, warm_up: float, seconds: float) -> None:
        self._environment = environment
        self._warm_up = warm_up
        self._seconds = seconds
        self._results: list[Result] = []
        events = cast(Any, environment.events)  # not annotated by Locust
        events.spawning_complete.add_listener(self._spawned)
        events.quit.add_listener(self._write)
        # The measured failures are the result's; an exit code other than 0 is left to mean "could not run".
        environment.process_exit_code = 0

    def _spawned(self, **_: Any) -> None:
        gevent.spawn(self._measure)

    def _measure(self) -> None:
        stats = self._environment.stats
        options = cast(Any, self._environment.parsed_options)
        gevent.sleep(self._warm_up)

        stats.reset_all()
        before = {user: user.answered for user in SocketUser.running}
        started, cpu, machine = perf_counter(), process_time(), _machine_cpu()
        gevent.sleep(self._seconds)
        seconds, cpu = perf_counter() - started, process_time() - cpu
        machine_after = _machine_cpu()

        machine_used = None if machine is None or machine_after is None else machine_after - machine
        for model in sorted({user.model for user in before}):
            name = request_name(model, options.workload)
            entry = stats.get(name, "TCP")
            timed = entry.num_requests - entry.num_none_requests
            self._results.append(
                Result(
                    model=model,
                    workload=options.workload,
                    users=sum(user.model == model for user in before),
                    depth=SocketUser.workloads[options.workload].depth,
                    seconds=seconds,
                    answered=entry.num_requests - entry.num_failures,
                    failures={
                        str(error.error): error.occurrences for error in stats.errors.values() if error.name == name
                    },
                    mean_us=entry.total_response_time / timed * 1000 if timed else None,
                    min_us=None if entry.min_response_time is None else entry.min_response_time * 1000,
                    max_us=entry.max_response_time * 1000 if timed else None,
                    histogram=sorted((round(key * 1000, 4), count) for key, count in entry.response_times.items()),
                    starved=sum(user.model == model and user.answered == count for user, count in before.items()),
                    generator_cpu=cpu,
                    machine_cpu=machine_used,
                    cores=psutil.cpu_count(),
                    versions=_versions(),
                )
            )
        cast(Any, self._environment.runner).quit()

    def _write(self, **_: Any) -> None:
        for found in self._results:
            result = asdict(found) | {"answered_in_all": SocketUser.answered_by_model[found.model]}
            sys.stdout.write(f"{MARKER}{json.dumps(result)}\n")
        sys.stdout.flush()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("locust", "gevent", "hiredis")}


def _machine_cpu() -> float | None:
    """CPU seconds that all cores have spent on anything; what a hypervisor took (steal) was not idle either."""
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None
    # Guest time is part of user time, proc(5).
    busy = (times.user, times.system, *(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq", "steal")))
    return sum(busy)
