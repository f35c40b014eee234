"""Presets: named load tests, each a workload with a loop, a shape, and defaults for users, rate and duration.

The prefix of a preset's name is its loop, `closed_` or `open_` (see `lab.load.workloads.CLOSED`).
"""

from dataclasses import dataclass, replace

from lab.base.errors import LabError
from lab.load.workloads import (
    CLOSED,
    CUSTOM_PROTOCOL,
    IDLE_CONNECTIONS,
    OPEN,
    SESSION,
    STEADY,
    WORKLOADS,
    Workload,
)
from services.protocol import Transport


@dataclass(frozen=True, slots=True)
class Preset:
    """A load test with a name.

    Args:
        name: what `lab load` takes.
        summary: one line for people.
        workload: its requests.
        loop: closed or open.
        shape: one of `SHAPES`: of the users in a closed loop, of the rate in an open one.
        users, rate, duration: defaults of the command line; seconds, requests per second per model.
        poisson: in an open loop, requests are due at random times, as from independent users.
        transport: default of the command line.
    """

    name: str
    summary: str
    workload: Workload
    loop: str = CLOSED
    shape: str = STEADY
    users: int = 16
    rate: float = 0.0
    duration: float = 5.0
    poisson: bool = False
    transport: Transport = Transport.TCP


def _closed(name: str, summary: str = "", workload: str = "", **changes: object) -> Preset:
    found = WORKLOADS[workload or name]
    made = Preset(f"{CLOSED}_{name}", summary or found.summary, found)
    return replace(made, **changes)  # type: ignore[arg-type]  # each is a field's


def _open(name: str, summary: str, workload: str = "ping", **changes: object) -> Preset:
    made = Preset(f"{OPEN}_{name}", summary, WORKLOADS[workload], OPEN, users=64, rate=1000.0)
    return replace(made, **changes)  # type: ignore[arg-type]  # each is a field's


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
    _open("poisson", "PING at random times, as from independent users", poisson=True),
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
    _open("mixed", "20 different requests, at random times", "mixed", rate=200.0, poisson=True),
    _open("http_ping", "GET /ping at a constant rate", "http_ping"),
    _open("http_echo_1k", "POST 1 KiB and get it back, at a constant rate", "http_echo_1k"),
    _open(
        "http_sleep", "HTTP requests that sleep 20 ms, at a constant rate: do they overlap?", "http_sleep", rate=200.0
    ),
    _open("http_churn", "connect, one GET, close, at a constant rate", "http_churn", rate=200.0),
    _open("http_mixed", "20 different HTTP requests, at random times", "http_mixed", rate=200.0, poisson=True),
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
        return Preset(name, CUSTOM_PROTOCOL.summary, CUSTOM_PROTOCOL)
    try:
        return PRESETS[name]
    except KeyError:
        raise LabError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}") from None
