"""The record of one measurement: what the generator has seen, what the server has used, and the verdict.

The server's CPU time is read before the generator starts and after it ends, and divided by all replies in between,
those of the warm-up included. So no two clocks have to agree. No other client uses the server during that time.

In JSON, a measurement is one flat object: `lab load --json` prints it, and the store has had it from the beginning.
`Measurement.as_json` and `from_json` are the only places that know this layout.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from lab.metrics.server_use import ServerUse
from lab.metrics.verdict import Limit, Verdict
from lab.servers.catalogue import Listener
from loadtests.contract import LoadResult
from loadtests.sockets.histogram import Histogram

# Names in JSON that are not the field's.
_SERVER = {name: f"server_{name}" for name in ("cpu_us", "user_us", "system_us", "cores", "throttled", "unknown")}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model under one load.

    Args:
        family, summary: from the catalogue.
        backend: where it ran.
        workload: name of the preset.
    """

    family: str
    summary: str
    backend: str
    workload: str
    load: LoadResult
    server: ServerUse
    verdict: Verdict

    @property
    def model(self) -> str:
        return self.load.model

    @property
    def users(self) -> int:
        return round(self.load.users)

    @property
    def answered(self) -> int:
        return self.load.answered

    @property
    def rate(self) -> float:
        return self.load.rate

    def percentile(self, share: float) -> float | None:
        """Return the response time within which this share of the exchanges ended, time-outs included."""
        return self.load.times.percentile(share)

    def rename(self, model: str) -> Self:
        """Return the same measurement under another name of its server."""
        return replace(self, load=replace(self.load, model=model))

    def as_json(self) -> dict[str, object]:
        """Return all fields and the derived figures, flat."""
        load, times = self.load, self.load.times.percentiles()
        generator = {item.name: getattr(load, item.name) for item in fields(load)}
        # The time of a clock says nothing after a restart; `window_begin` has what is left of it.
        del generator["intended"], generator["asked"], generator["began"]
        return {
            **{name: getattr(self, name) for name in ("family", "summary", "backend", "workload")},
            **generator,
            "users": self.users,
            "mean_users": load.users,
            "histogram": load.times.pairs(),
            "service": None if load.intended is None else load.service.pairs(),
            **{name: getattr(load.service, name) for name in ("mean_us", "min_us", "max_us")},
            **{_SERVER.get(item.name, item.name): getattr(self.server, item.name) for item in fields(self.server)},
            "verdict": asdict(self.verdict),
            **{name: getattr(load, name) for name in ("rate", "rate_ratio", "asked_rate", "in_flight")},
            "rate_is_lower_bound": self.verdict.is_lower_bound,
            **times,
            **{f"service_{name}": time for name, time in load.service.percentiles().items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Parse the result of `as_json`, also of older versions, which lack some fields; ignore unknown fields.

        Raises:
            KeyError, TypeError, ValueError: the data is not a measurement.
        """
        intended = None if data.get("service") is None else Histogram.from_pairs(data["histogram"])
        sent = {"pairs": data["histogram"] if intended is None else data["service"]}
        asked_rate = data.get("asked_rate")
        load = LoadResult(
            **{item.name: data[item.name] for item in fields(LoadResult) if item.name in data and item.name in _PLAIN},
            transport=data.get("transport", "tcp"),
            users=data.get("mean_users", data["users"]),
            service=Histogram.from_json({**sent, **{name: data[name] for name in ("mean_us", "min_us", "max_us")}}),
            intended=intended,
            asked=None if asked_rate is None else round(asked_rate * data["seconds"] / data["depth"]),
            core_use=tuple(data.get("core_use", ())),
            core_steal=tuple(data.get("core_steal", ())),
            disturbances=tuple(data.get("disturbances", ())),
            course=tuple(tuple(row) for row in data.get("course", ())),
        )
        known = {item.name: _SERVER.get(item.name, item.name) for item in fields(ServerUse)}
        used = {name: data[key] for name, key in known.items() if key in data}
        used["series"] = tuple(tuple(row) for row in used.get("series", ()))
        verdict = Verdict(Limit(data["verdict"]["bound"]), data["verdict"]["reason"])
        return cls(data["family"], data["summary"], data["backend"], data["workload"], load, ServerUse(**used), verdict)


# Fields of a result that are the same in JSON.
_PLAIN = {item.name for item in fields(LoadResult)} - {
    "transport",
    "users",
    "service",
    "intended",
    "asked",
    "core_use",
    "core_steal",
    "disturbances",
    "course",
}


def encode_targets(listeners: Sequence[Listener]) -> str:
    """Encode addresses for the load generator, in the format of `lab ls --json`."""
    rows: dict[str, list[dict[str, str]]] = {}
    for item in listeners:
        rows.setdefault(item.model, []).append(item.as_json())
    return json.dumps([{"model": model, "listeners": found} for model, found in rows.items()])
