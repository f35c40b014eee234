"""Store a demo, and make its page of what is stored."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mode

from lab.base.units import show_us
from lab.experiments.demo import NAME, Demo, is_sound, keep, read
from lab.experiments.store import Run
from lab.load.measurement import Measurement
from lab.load.workloads import SESSION
from lab.metrics.verdict import STOLEN, show_failures
from lab.report import demo_page
from lab.report.cells import Cell, show_rate
from lab.report.extra_columns import ExtraColumn
from lab.report.measurement_charts import Comparison
from lab.servers.catalogue import PEER

_WAITS, _HTTP = "20 ms waits/s", "HTTP/s"

_PEER = "A peer is another project's server, for reference. If it has no PING, it returns the same number of bytes."
_COST = (
    "CPU µs/request is the server's own CPU time, user and system, per request with its share of a connection. Compare "
    "it before requests/s, which depends on everything else on the machine. If the verdict is waiting, both sides "
    "sleep between requests, and part of it (on a virtual machine a large part) can be the wake-up of an idle core."
)
_VERDICT = (
    "The verdict names what limited the rate. server-bound: the server itself. generator-bound and machine-bound: the "
    "load generator or the whole machine ran out of CPU first, so the rate is a lower bound (≥) and not a ranking. "
    "waiting: neither was busy; they waited for each other."
)
_NOTES = (
    "Memory and threads are maxima under the first load. A process counts as a thread, and so does the small init "
    "process of each container.",
    "Tests are those of the conformance suite that a server passes. The first one takes more: cases that only the code "
    "of the protocol sees, which is the same in all models, run once.",
    "A few seconds show the kind of each server. To rank similar ones takes more repetitions: `lab bench`.",
)


def write(out: Path, found: Demo, environment: Mapping[str, str | None]) -> Path:
    """Store a demo in the results folder, and return the path of its page.

    Raises:
        StoreError: It cannot be stored.
    """
    run = Run.create(NAME, {"plan": {"families": dict(found.families)}, "environment": environment}, root=out)
    keep(found, run)
    run.finish({})
    return run.write_page(render(run))


def render(run: Run) -> str:
    found, environment = read(run), run.facts["environment"]
    clients = f"{_count_clients(found.measurements)} clients" if found.measurements else "clients"
    said = f"One run of socketlab's demo: every server answers the same {clients}, {environment['date']}."
    return demo_page.render(
        Comparison(found.measurements, found.costs, found.rates),
        title=_make_title(found.families.values()),
        lead=" ".join((said, *warn_of_hypervisor(found), *explain_further_loads(found))),
        captions=make_captions(found),
        checks=found.checks,
        missing=found.missing,
        extra=make_columns(found),
        environment=environment,
    )


def make_captions(found: Demo) -> tuple[str, ...]:
    """Return what explains the figures: of a stored demo with its own numbers of clients and rounds."""
    return (
        *describe_load(found),
        _PEER,
        _COST,
        *_describe_rows(found),
        _VERDICT,
        *_describe_other_loads(found),
        *_NOTES,
    )


def describe_load(found: Demo) -> tuple[str, ...]:
    """Return the load of the rows; nothing if there are none."""
    if not found.measurements:
        return ()
    return (
        f"The load: {_count_clients(found.measurements)} clients, each without a pause: connect, {SESSION} PINGs one "
        f"after the other, close, repeat. Every reply is checked. One request in {SESSION} includes connecting and "
        "queueing, so p99 shows the queue: a server that takes one client at a time looks fast at p50 and slow at p99.",
    )


def _count_clients(found: Iterable[Measurement]) -> int:
    """Return how many clients each had: what most have, since on a busy machine one may have come late."""
    return mode(item.users for item in found)


def _describe_rows(found: Demo) -> tuple[str, ...]:
    if not (rounds := max(map(len, found.rounds.values()), default=0)):
        return ()
    return (
        f"Each model is loaded {rounds} times, interleaved with the others, on other cores than the load generator "
        "where there are two. A line reaches from the lowest to the highest of these, and its dot is the median; a row "
        "shows one load, that of median cost among those with the most frequent verdict. Its rate may not be the "
        "median. Rows are in families, the least CPU first. ≈ marks a cost that ties with the one above: the lines "
        "overlap.",
    )


def _describe_other_loads(found: Demo) -> Iterator[str]:
    if found.waits:
        clients = _count_clients(found.waits.values())
        yield (
            f"20 ms waits/s is another load: {clients} clients of each model on open connections, all models at "
            "once. Each request waits for 20 ms without CPU. One at a time is at most 50 per second; all "
            f"{clients} at once is at most {clients * 50}."
        )
    if found.http:
        yield (
            f"HTTP/s and HTTP CPU µs are of a third load: {_count_clients(found.http.values())} clients that send GET "
            "/ping on kept connections, and the CPU time of the server for each. It is another load than PING: compare "
            "models with each other, not the two."
        )


def warn_of_hypervisor(found: Demo) -> tuple[str, ...]:
    """Return a warning if a hypervisor took part of the machine in some loads: no figure of these is the server's."""
    loads = [item.load for items in (*found.rounds.values(), found.http.values()) for item in items]
    shares = [share for load in loads if (share := load.stolen_ratio) is not None]
    if not (taken := [share for share in shares if share >= STOLEN]):
        return ()
    return (
        f"In {len(taken)} of {len(shares)} loads a hypervisor gave a part of this machine's cores to others, "
        f"up to {max(taken):.0%}. Other machines on its host are busy: compare these figures with care, or repeat.",
    )


def explain_further_loads(found: Demo) -> tuple[str, ...]:
    """Return what went wrong under the loads that have no verdict in the table."""
    return tuple(
        f"{model}: {heading}: {item.verdict.bound}: {item.verdict.reason}"
        + (f"; {show_failures(failures)}" if (failures := item.load.failures) else "")
        for heading, measured in ((_WAITS, found.waits), (_HTTP, found.http))
        for model, item in measured.items()
        if not is_sound(item)
    )


def _make_title(families: Iterable[str]) -> str:
    ours = sum(family != PEER for family in families)
    return f"{ours} socket server{'' if ours == 1 else 's'}, one protocol"


def make_columns(found: Demo) -> tuple[ExtraColumn, ...]:
    """Return the columns of a demo: requests that sleep, and HTTP."""
    return (
        ExtraColumn(_WAITS, found.waits, _rate),
        ExtraColumn(_HTTP, found.http, _rate),
        ExtraColumn("HTTP CPU µs", found.http, _cpu),
    )


def _rate(found: Measurement | None) -> Cell:
    return Cell(found.rate if found else None, show_rate(found))


def _cpu(found: Measurement | None) -> Cell:
    return Cell.of(found.server.cpu_us if found else None, show_us)
