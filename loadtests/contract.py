"""What the lab asks of the load generator (`LoadSpec`), and what the generator has seen (`LoadResult`).

Both sides import this module, which imports neither Locust nor the lab. A specification becomes arguments of Locust's
command line, and is read back from the options that Locust or its form has parsed. A result is a line of JSON.
"""

import contextlib
import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar

from loadtests.shapes import CLOSED, LOOPS, OPEN, SHAPES, STEADY
from loadtests.sockets.histogram import Histogram
from services.protocol import Transport

# How the requests of an open loop are spread over time.
EVEN, RANDOM = "even", "random"

# The prefix of a result on the generator's stdout, where Locust and its libraries may print other lines.
_RESULT = "LOAD-RESULT "

# The columns of `LoadResult.course`; each figure covers up to three seconds, see `loadtests.course.Point`.
COURSE = ("seconds", "rate", "p50_us", "p99_us", "failures", "connections")

# Start all users at once: the window begins when the last one has started.
_SPAWN_FACTOR = 100

_FLAG = "flag"
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of the load generator. It is declared once, here; the default is its field's.

    Args:
        help: for the command line of `lab load`, and for Locust's with its form.
        read: makes the value of a text.
        choices: the possible values, the default first; empty: all that `read` takes.
        in_form: whether Locust's web UI has a field for it.
    """

    help: str
    read: Callable[[str], object]
    choices: tuple[str, ...]
    in_form: bool


def _flag(
    default: _Value,
    text: str,
    read: Callable[[str], object] = str,
    *,
    choices: tuple[str, ...] = (),
    in_form: bool = True,
) -> _Value:
    found: _Value = field(default=default, metadata={_FLAG: Flag(text, read, choices, in_form)})
    return found


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """A load, as the generator gets it. Times in seconds.

    Args:
        users: concurrent connections per model.
        transport, payload: how they are sent, and bytes where the size can be chosen; 0: the workload's own.
        loop, rate, arrivals: see the flags.
        shape, shape_time: of the users in a closed loop, of the rate in an open one.
        window, warm_up: the measured time and the time before it; without a window the load runs until it is stopped.
    """

    models: tuple[str, ...] = ()
    users: int = 1
    workload: str = _flag("ping", "Requests.")
    transport: Transport = _flag(  # noqa: RUF009 - it calls `field`
        Transport.TCP, "Transport.", Transport, choices=tuple(item.value for item in Transport)
    )
    loop: str = _flag(CLOSED, "Closed: send after a reply; open: send at a rate.", choices=LOOPS)
    arrivals: str = _flag(EVEN, "In an open loop: at even or at random times.", choices=(EVEN, RANDOM))
    shape: str = _flag(STEADY, "How users (closed loop) or rate (open) change.", choices=SHAPES)
    rate: float = _flag(1000.0, "In an open loop: requests/s for each model.", float)
    payload: int = _flag(0, "Bytes of payload, where there is one.", int)
    shape_time: float = _flag(60.0, "Duration of the shape in seconds.", float)
    timeout: float = _flag(5.0, "Timeout of an exchange.", float)
    window: float | None = _flag(None, "Measured time of each model.", float, in_form=False)
    warm_up: float = _flag(0.5, "Load before the measured time.", float, in_form=False)

    @property
    def is_open(self) -> bool:
        """Whether requests are due at times that do not depend on replies."""
        return self.loop == OPEN

    def to_arguments(self) -> list[str]:
        """Return the arguments of Locust for this load."""
        total = self.users * len(self.models)
        found = ["--models", *self.models, "--users", str(total), "--spawn-rate", str(total * _SPAWN_FACTOR)]
        for name in FLAGS:
            if (value := getattr(self, name)) is not None:
                found += [option_of(name), str(value)]
        return found

    @classmethod
    def from_options(cls, options: Namespace) -> Self:
        """Return the load of Locust's options: the inverse of `to_arguments`.

        Raises:
            ValueError: an option is not one of its choices.
        """
        values: dict[str, Any] = {}
        for name, flag in FLAGS.items():
            value = getattr(options, name)
            if flag.choices and value not in flag.choices:
                raise ValueError(f"unknown {name} {value!r}: one of {', '.join(flag.choices)}")
            values[name] = flag.read(value) if flag.choices else value
        models = tuple(options.models)
        # Locust counts the users of all models together; its own default is 1.
        return cls(models, -(-(options.num_users or 1) // max(len(models), 1)), **values)


FLAGS: Mapping[str, Flag] = {item.name: item.metadata[_FLAG] for item in fields(LoadSpec) if _FLAG in item.metadata}
_DEFAULT = LoadSpec()


def option_of(name: str) -> str:
    """Return the option for a field: `--warm-up` for `warm_up`."""
    return f"--{name.replace('_', '-')}"


def declare(name: str) -> dict[str, Any]:
    """Return the keywords of argparse for a flag."""
    flag, default = FLAGS[name], getattr(_DEFAULT, name)
    about = {"help": flag.help.replace("%", "%%")}
    if flag.choices:
        return {**about, "choices": flag.choices, "default": str(default)}
    return {**about, "type": flag.read, "default": default}


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One load on one model, as the generator has seen it. Times of a `Histogram` in microseconds; None if unknown.

    Args:
        users: mean number of connections; each has at most one exchange in flight.
        depth: requests in one exchange; more than one in a pipeline.
        seconds: the window, after the warm-up.
        answered: exchanges of the window with a correct reply.
        failures: failed exchanges by reason.
        service: times from sending; of replies and timeouts.
        intended: times from when the exchange was due, in an open loop; None in a closed one.
        asked: exchanges that were due in the window in an open loop; None in a closed one.
        late, dropped: exchanges of these that were sent more than a millisecond late, or could not be sent.
        lost, duplicates, reordered: datagrams without a reply in time, with two replies, or out of order.
        starved: users without a reply in the window.
        generators: processes that generated the load.
        generator_cores: mean number of cores that they used, for all models together.
        generator_throttled: share of the time for which a CPU quota stopped the generator, of its
            processes the maximum.
        machine_cores: mean number of cores that all processes of this machine used. A container sees the whole machine.
        core_use, core_steal: for each core by its number, the share of the window for which it was busy, and the part
            of that share that a hypervisor gave to others; empty if unknown.
        cores: cores of the machine.
        versions: of the software of the generator.
        answered_in_all: exchanges since the start, warm-up included; the server's CPU time is divided by it.
        warm_up_failures: failed exchanges of the warm-up by reason.
        disturbances: sentences about events that make the figures meaningless.
        began: when the window began, of this machine's CLOCK_MONOTONIC in seconds.
        course: figures at each second of the window, in rows of `COURSE`; empty for a window of less than a second.
    """

    model: str
    transport: str
    users: float
    depth: int
    seconds: float
    answered: int
    failures: Mapping[str, int]
    service: Histogram
    intended: Histogram | None = None
    asked: int | None = None
    late: int = 0
    dropped: int = 0
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    starved: int = 0
    generators: int = 1
    generator_cores: float | None = None
    generator_throttled: float | None = None
    machine_cores: float | None = None
    core_use: tuple[float, ...] = ()
    core_steal: tuple[float, ...] = ()
    cores: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    answered_in_all: int = 0
    warm_up_failures: Mapping[str, int] = field(default_factory=dict)
    disturbances: tuple[str, ...] = ()
    began: float | None = field(default=None, compare=False)  # a clock that no other boot shares: it is not stored
    course: tuple[tuple[float | None, ...], ...] = ()

    @property
    def times(self) -> Histogram:
        """Return the response times: from sending, in an open loop from when the exchange was due."""
        return self.service if self.intended is None else self.intended

    @property
    def rate(self) -> float:
        return self.answered * self.depth / self.seconds

    @property
    def asked_rate(self) -> float | None:
        """Return requests per second that were due in an open loop; None in a closed one."""
        return None if self.asked is None else self.asked * self.depth / self.seconds

    @property
    def rate_ratio(self) -> float | None:
        """Return the rate relative to the requested rate; None in a closed loop."""
        return self.rate / self.asked_rate if self.asked_rate else None

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def failure_ratio(self) -> float | None:
        """Return the share of failed exchanges; None if there were no exchanges."""
        exchanges = self.answered + self.failed
        return self.failed / exchanges if exchanges else None

    def ratio(self, count: int) -> float | None:
        """Return a count of exchanges relative to those that were due; None in a closed loop."""
        return count / self.asked if self.asked else None

    @property
    def loss_ratio(self) -> float | None:
        """Return the share of lost datagrams; None if none were answered or lost."""
        sent = self.answered * self.depth + self.lost
        return self.lost / sent if sent else None

    @property
    def stolen_ratio(self) -> float | None:
        """Return the share of all cores that a hypervisor gave to others; None if unknown."""
        return sum(self.core_steal) / len(self.core_steal) if self.core_steal else None

    @property
    def in_flight(self) -> float | None:
        """Return the mean number of exchanges in flight by Little's law: rate x response time."""
        mean = self.service.mean_us
        return None if mean is None else self.service.total / self.seconds * mean / 1e6

    def as_json(self) -> dict[str, object]:
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        return own | {
            "service": self.service.as_json(),
            "intended": None if self.intended is None else self.intended.as_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Parse the result of `as_json`.

        Raises:
            KeyError, TypeError, ValueError: the data is not a result.
        """
        intended = data["intended"]
        changed = {
            "service": Histogram.from_json(data["service"]),
            "intended": None if intended is None else Histogram.from_json(intended),
            "core_use": tuple(data["core_use"]),
            "core_steal": tuple(data["core_steal"]),
            "disturbances": tuple(data["disturbances"]),
            "course": tuple(tuple(row) for row in data["course"]),
        }
        return cls(**{**data, **changed})

    def encode(self) -> str:
        return f"{_RESULT}{json.dumps(self.as_json())}"

    @classmethod
    def find_all(cls, output: str) -> list[Self]:
        """Return the results in the output of a generator; skip what a terminal or a crash has damaged."""
        found = []
        for line in output.splitlines():
            # Anywhere in the line: progress output of a terminal may precede it.
            _, marker, text = line.partition(_RESULT)
            if marker:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    found.append(cls.from_json(json.loads(text)))
        return found
