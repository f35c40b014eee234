"""Tables of the published figures (docs/data/measured.json) for the pages of the models."""

from collections.abc import Sequence

from lab.base.units import UNKNOWN, show_bytes, show_count, show_us
from lab.experiments.published import Idle, Measured, Summary
from lab.servers.catalogue import Model
from tools.docs.markdown import make_table

# The workloads of the rows.
SESSIONS, PIPELINE, HTTP = "closed_session", "closed_pipeline_16", "closed_http_ping"
# The server that people deploy, to which the cost of HTTP is compared.
REFERENCE = "peer_uvicorn"

_NOT_YET = "not measured yet"

_UNDER_LOAD = (
    "PINGs/s",
    "spread",
    "p50 µs",
    "p99 µs",
    "CPU µs/request",
    "memory",
    "verdict",
    "in pipelines of 16: requests/s",
    "CPU µs/request",
)
_HTTP = (
    "HTTP: GET /ping per second",
    "p50 µs",
    "p99 µs",
    "CPU µs/request",
    "relative to a PING",
    "relative to uvicorn",
    "verdict",
)
_WEBSOCKETS = ("model", "what allows no more", "idle WebSockets held", "memory for each")
_IDLE = ("idle connections held", "memory for each", "a new client: p50 µs", "p99 µs")


def make_environment(measured: Measured) -> str:
    """Return the list of what the figures were measured on."""
    if measured.models:
        rounds = sorted({found.rounds for each in measured.models.values() for found in each.values()})
        length = "unknown length" if measured.seconds is None else f"{measured.seconds:g} s"
        facts = {"under load": f"medians of {' or '.join(map(str, rounds))} rounds of {length}"}
        lines = [f"* {name}: {value or 'not known'}" for name, value in (facts | dict(measured.environment)).items()]
    else:
        lines = [f"* under load: {_NOT_YET}; `make bench-models` measures it"]
    if measured.idle:
        facts = {name: measured.idle_environment.get(name) or "not known" for name in ("date", "commit", "processor")}
        lines.append(f"* idle connections: {'; '.join(f'{name} {value}' for name, value in facts.items())}")
    else:
        lines.append(f"* idle connections: {_NOT_YET}; `benchmarks/idle.py` measures them")
    return "\n".join(lines)


def make_row(measured: Measured, model: Model) -> str:
    """Return the figures of one model."""
    name = model.name
    if name in measured.models:
        parts = [make_table(_UNDER_LOAD, [_cells_under_load(measured, name)], figures_from=0)]
    else:
        parts = [f"Under load: {measured.missing.get(name, _NOT_YET)}."]
    if any(HTTP in found for found in measured.models.values()):  # otherwise the run had no HTTP
        parts.append(_make_http(measured, name))
    if name in measured.idle:
        parts.append(make_table(_IDLE, [_cells_idle(measured.idle[name])], figures_from=0))
    elif "overlap" not in model.limits:  # with that limit it holds one connection: nothing to measure
        parts.append(f"Idle connections: {_NOT_YET}.")
    return "\n\n".join(parts)


def make_rows(measured: Measured, models: Sequence[str]) -> str:
    """Return the figures of all models, one row each."""
    if not measured.models and not measured.idle:
        return f"{_NOT_YET.capitalize()}."
    rows = [
        [f"`{model}`", *_cells_under_load(measured, model), *_cells_idle(measured.idle.get(model, Idle()))]
        for model in models
    ]
    return make_table(["model", *_UNDER_LOAD, *_IDLE], rows, figures_from=1)


def make_websockets(measured: Measured, models: Sequence[Model]) -> str:
    """Return the memory of idle WebSockets: one row for each model, and what it was measured on."""
    if not measured.websockets:
        return f"{_NOT_YET.capitalize()}."
    rows = []
    for model in models:
        found = measured.websockets.get(model.name, Idle())
        why = found.why or (_explain_none(model) if found.connections is None else "")
        rows.append([f"`{model.name}`", why, *_cells_idle(found)[:2]])
    facts = "; ".join(f"{name} {value}" for name, value in measured.websockets_environment.items() if value)
    return f"{make_table(_WEBSOCKETS, rows, figures_from=2)}\n\nMeasured on: {facts}."


def _explain_none(model: Model) -> str:
    if "overlap" in model.limits:
        return model.limits["overlap"]
    return "runs only in a container" if model.only_in_container else _NOT_YET


def _cells_under_load(measured: Measured, model: str) -> list[str]:
    found = measured.models.get(model, {})
    sessions, pipeline = found.get(SESSIONS), found.get(PIPELINE)
    return [
        _show_rate(sessions),
        UNKNOWN if sessions is None or sessions.rate_spread is None else f"± {sessions.rate_spread:.0%}",
        show_us(sessions.p50_us if sessions else None),
        show_us(sessions.p99_us if sessions else None),
        show_us(sessions.cpu_us if sessions else None),
        show_bytes(sessions.memory_bytes if sessions else None),
        _show_verdicts(sessions),
        _show_rate(pipeline) + (" (one client)" if pipeline and pipeline.users == 1 else ""),
        show_us(pipeline.cpu_us if pipeline else None),
    ]


def _make_http(measured: Measured, model: str) -> str:
    found = measured.models.get(model, {}).get(HTTP)
    if found is None:
        return f"HTTP: {measured.missing.get(model, _NOT_YET)}."
    cells = [
        _show_rate(found),
        show_us(found.p50_us),
        show_us(found.p99_us),
        show_us(found.cpu_us),
        _show_ratio(found, measured.models[model].get(SESSIONS)),
        _show_ratio(found, measured.models.get(REFERENCE, {}).get(HTTP)),
        _show_verdicts(found),
    ]
    return make_table(_HTTP, [cells], figures_from=0)


def _show_ratio(found: Summary, other: Summary | None) -> str:
    """Return the CPU time per request relative to another measurement of the same run."""
    if other is None or not found.cpu_us or not other.cpu_us:
        return UNKNOWN
    return f"{found.cpu_us / other.cpu_us:.2f}"


def _cells_idle(found: Idle) -> list[str]:
    return [
        UNKNOWN if found.connections is None else str(found.connections),
        UNKNOWN if found.bytes_per_connection is None else f"{found.bytes_per_connection / 1024:.1f} KiB",
        show_us(found.p50_us),
        show_us(found.p99_us),
    ]


def _show_rate(found: Summary | None) -> str:
    if found is None:
        return UNKNOWN
    rate = ("≥ " if found.is_lower_bound else "") + show_count(found.rate)
    return rate + (f", {found.failures} failed" if found.failures else "")


def _show_verdicts(found: Summary | None) -> str:
    if found is None or not found.verdicts:
        return UNKNOWN
    return ", ".join(
        verdict if len(found.verdicts) == 1 else f"{verdict} ({count} of {found.rounds})"
        for verdict, count in found.verdicts.items()
    )
