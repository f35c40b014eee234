"""Presets: load tests with a name, each a specification with defaults for users, rate and duration.

The prefix of a preset's name is its loop, `closed_` or `open_` (see `loadtests.shapes.CLOSED`).
"""

from dataclasses import dataclass, replace

from lab.base.errors import LabError
from lab.load.workloads import CUSTOM_PROTOCOL, IDLE_CONNECTIONS, SESSION, WORKLOADS, Workload
from loadtests.contract import EVEN, RANDOM, LoadSpec
from loadtests.shapes import CLOSED, OPEN, STEADY
from services.protocol import Transport


@dataclass(frozen=True, slots=True)
class Preset:
    """A load test with a name.

    Args:
        name: what `lab load` takes, and what its results are named after.
        summary: one line for people.
        spec: the load, without the models.
    """

    name: str
    summary: str
    spec: LoadSpec

    @property
    def workload(self) -> Workload:
        return CUSTOM_PROTOCOL if self.spec.workload == CUSTOM_PROTOCOL.name else WORKLOADS[self.spec.workload]

    @property
    def duration(self) -> float:
        """Return the seconds of the measured window."""
        return self.spec.window or 0.0

    def change(
        self,
        *,
        users: int | None = None,
        rate: float | None = None,
        duration: float | None = None,
        transport: Transport | None = None,
        payload: int | None = None,
        warm_up: float | None = None,
        timeout: float | None = None,
    ) -> "Preset":
        """Return the same load test with other options; None: as it is.

        Raises:
            LabError: a closed loop has no rate.
        """
        old = self.spec
        if rate and not old.is_open:
            raise LabError(f"--rate goes with an open loop, and {self.name} is a closed one")
        spec = replace(
            old,
            users=users or old.users,
            rate=rate or old.rate,
            window=duration or old.window,
            shape_time=duration or old.shape_time,
            transport=transport or old.transport,
            payload=payload or old.payload,
            warm_up=old.warm_up if warm_up is None else warm_up,
            timeout=timeout or old.timeout,
        )
        return replace(self, spec=spec)


_CLOSED_USERS, _OPEN_USERS = 16, 64
_SECONDS = 5.0


def _make(name: str, summary: str, spec: LoadSpec, duration: float) -> Preset:
    return Preset(f"{spec.loop}_{name}", summary, replace(spec, window=duration, shape_time=duration))


def _closed(
    name: str,
    summary: str = "",
    workload: str = "",
    *,
    users: int = _CLOSED_USERS,
    shape: str = STEADY,
    duration: float = _SECONDS,
    transport: Transport = Transport.TCP,
) -> Preset:
    found = WORKLOADS[workload or name]
    spec = LoadSpec(workload=found.name, users=users, shape=shape, transport=transport)
    return _make(name, summary or found.summary, spec, duration)


def _open(
    name: str,
    summary: str,
    workload: str = "ping",
    *,
    rate: float = 1000.0,
    shape: str = STEADY,
    arrivals: str = EVEN,
    duration: float = _SECONDS,
    transport: Transport = Transport.TCP,
) -> Preset:
    spec = LoadSpec(
        workload=workload,
        users=_OPEN_USERS,
        loop=OPEN,
        rate=rate,
        shape=shape,
        arrivals=arrivals,
        transport=transport,
    )
    return _make(name, summary, spec, duration)


_PRESETS = (
    # The default of `lab load` comes first.
    _closed("session"),
    *(_closed(name) for name in WORKLOADS if name not in ("session", "datagrams")),
    _closed("latency", "one PING at a time on one connection: the bare round trip", "ping", users=1),
    _closed("ramp", "PING, users rise from none to all", "ping", shape="ramp", users=64, duration=20.0),
    _closed("steps", "PING, users rise in five steps", "ping", shape="steps", users=64, duration=20.0),
    _closed("spike", "PING, ten times the users for a while", "ping", shape="spike", users=64, duration=20.0),
    _closed("soak", "PING for ten minutes: what grows?", "ping", duration=600.0),
    _closed("datagrams", transport=Transport.UDP),
    _open("steady", "PING at a constant rate"),
    _open("poisson", "PING at random times, as from independent users", arrivals=RANDOM),
    _open("ramp", "PING, the rate rises from none: where is the limit?", shape="ramp", duration=20.0, rate=10_000.0),
    _open("steps", "PING, the rate rises in five steps", shape="steps", duration=20.0, rate=10_000.0),
    _open("spike", "PING, ten times the rate for a while: recovery", shape="spike", duration=20.0, rate=10_000.0),
    _open("soak", "PING at a constant rate for ten minutes: what grows?", duration=600.0),
    _open("session", f"{SESSION} PINGs per connection, at a constant rate", "session"),
    _open("churn", "connect, one PING, close, at a constant rate", "churn", rate=200.0),
    _open("echo_1k", "1 KiB there and back, at a constant rate", "echo_1k"),
    _open("echo_64k", "64 KiB there and back, at a constant rate", "echo_64k", rate=200.0),
    _open("pipeline_16", "16 PINGs at once, at a constant rate", "pipeline_16"),
    _open("download", "connect, read 256 KiB of chargen, close, at a constant rate", "download", rate=50.0),
    _open("sleep_20ms", "requests that sleep 20 ms, at a constant rate: do they overlap?", "sleep_20ms", rate=200.0),
    _open("burn", "CPU-bound requests at a constant rate: what do they block?", "burn", rate=200.0),
    _open(
        "idle_connections",
        f"PING at a constant rate while {IDLE_CONNECTIONS} other connections are idle",
        "idle_connections",
    ),
    _open("mixed", "20 different requests, at random times", "mixed", rate=200.0, arrivals=RANDOM),
    _open("http_ping", "GET /ping at a constant rate", "http_ping"),
    _open("http_echo_1k", "POST 1 KiB and get it back, at a constant rate", "http_echo_1k"),
    _open(
        "http_sleep", "HTTP requests that sleep 20 ms, at a constant rate: do they overlap?", "http_sleep", rate=200.0
    ),
    _open("http_churn", "connect, one GET, close, at a constant rate", "http_churn", rate=200.0),
    _open("http_mixed", "20 different HTTP requests, at random times", "http_mixed", rate=200.0, arrivals=RANDOM),
    _open("ws_echo", "1 KiB as a WebSocket message there and back, at a constant rate", "ws_echo"),
    _open("datagrams", "16 numbered datagrams at once, at a constant rate", "datagrams", transport=Transport.UDP),
)
PRESETS = {preset.name: preset for preset in _PRESETS}


def find_preset(name: str) -> Preset:
    """Return the preset with a name.

    Raises:
        LabError: there is none.
    """
    if name == CUSTOM_PROTOCOL.name:
        spec = LoadSpec(workload=name, users=_CLOSED_USERS, window=_SECONDS, shape_time=_SECONDS)
        return Preset(name, CUSTOM_PROTOCOL.summary, spec)
    try:
        return PRESETS[name]
    except KeyError:
        raise LabError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}") from None


def combine(workload: str, *, loop: str | None, shape: str | None, arrivals: str | None) -> Preset:
    """Return the preset with a workload, a loop, a shape and arrivals, or make one.

    Args:
        workload: a name of `WORKLOADS`.
        loop: default: closed.
        shape, arrivals: default: those of the first preset with this workload and loop.

    Raises:
        LabError: the workload has no such loop, or the loop no arrivals.
    """
    loop = loop or CLOSED
    if loop == OPEN and WORKLOADS[workload].exchange is None:
        raise LabError(f"{workload} is a script, and has no open loop")
    if arrivals and loop != OPEN:
        raise LabError("--arrivals goes with an open loop: add --loop open")
    alike = [item for item in _PRESETS if (item.spec.workload, item.spec.loop) == (workload, loop)]
    for item in alike:
        if shape in (None, item.spec.shape) and arrivals in (None, item.spec.arrivals):
            return item
    base = alike[0] if alike else _open(workload, WORKLOADS[workload].summary, workload)
    spec = replace(base.spec, shape=shape or base.spec.shape, arrivals=arrivals or base.spec.arrivals)
    name = "_".join(part for part in (loop, workload, shape, arrivals) if part)
    return Preset(name, WORKLOADS[workload].summary, spec)
