"""What the lab asks of the load generator (`LoadSpec`).

Both sides import this module, which imports neither Locust nor a backend. A specification becomes arguments of Locust's
command line, and is read back from the options that Locust or its form has parsed.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar

from lab.load.workloads import CLOSED, LOOPS, OPEN, SHAPES, STEADY
from services.protocol import Transport

# How the requests of an open loop are spread over time.
EVEN, RANDOM = "even", "random"

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
    read: Callable[[str], object] = str
    choices: tuple[str, ...] = ()
    in_form: bool = True


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
        models: what is loaded at the same time.
        users: concurrent connections per model.
        workload: name of the requests.
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
