"""Score each model under each fault.

Clients with a request log (`lab.clients.request_log`) load the model. The fault is injected at a moment chosen by the
seed, and healed. The account of all requests is then judged by what the fault allows, and so are the times of a
latency probe (`lab.experiments.faults.probe_reader`).
"""

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.base.errors import LabError, NotReadyError
from lab.clients.request_log import Account, Begun, End, Mark, Marked
from lab.experiments.faults.fault import (
    CannotApplyError,
    EndedError,
    Evidence,
    Fault,
    NotApplicableError,
    NotHealedError,
    RecoveryStart,
    find_address,
    find_exit_code,
    injected,
)
from lab.experiments.faults.judge import RECOVERY_TIMEOUT, Score, Verdict, judge, judge_times
from lab.experiments.faults.ping_cost import judge_cost, measure_ping
from lab.experiments.faults.probe_reader import ProbeReader, open_probe
from lab.experiments.faults.registry import FAULTS
from lab.servers.backend import Backend, Servers
from lab.servers.helper import Helper

_CONNECTIONS = 8
_MOMENT = (0.1, 0.6)  # seconds from the first answers to the injection
_REQUEST_LOG_TIMEOUT = 60.0
_AFTER_SECONDS = 0.2


def open_optional_probe(backend: Backend, model: str) -> contextlib.AbstractContextManager[ProbeReader | None]:
    """Open a latency probe; None for a model that serves one client at a time, whose only slot it would take."""
    if "overlap" in backend.catalogue[model].limits:
        return contextlib.nullcontext()
    return open_probe(backend, model)


def apply(
    backend: Backend, model: str, fault: str, seed: int, *, probe: ProbeReader | None = None, control: bool = False
) -> Score | None:
    """Inject one fault into a running model, heal it, and score the model.

    Args:
        control: Do everything except the injection.

    Returns:
        None if the model has nothing that this fault could break.

    Raises:
        NotHealedError: The fault could not be healed.
        LabError: The fault could not be tested.
    """
    chosen = FAULTS[fault]
    moment = random.Random(f"{seed}-{model}-{fault}").uniform(*_MOMENT)  # noqa: S311 - not used as a secret
    limits = backend.catalogue[model].limits
    expected = next((limits[name] for name in chosen.needs if name in limits), "")
    try:
        if chosen.measured_by is Evidence.PING:
            found = _measure_ping(backend, model, chosen, seed, moment, control=control)
        else:
            found = _measure(backend, model, chosen, seed, moment, probe, control=control)
    except NotApplicableError:
        return None
    except CannotApplyError as error:
        return Score(model, fault, Verdict.UNKNOWN, str(error), seed, moment, control)
    except NotHealedError:
        raise
    except LabError as error:
        if (reason := _restart_if_down(backend, model, error)) is None:
            raise
        return Score(model, fault, Verdict.FAILED, reason, seed, moment, control)
    # The declared limits are about waiting clients. They do not excuse a model that ended.
    return replace(found, expected="" if control or (found.interval and found.interval.ended is not None) else expected)


def _restart_if_down(servers: Servers, model: str, error: LabError) -> str | None:
    """Restart a model that has ended or hangs, and return the reason for its score; None if it does neither."""
    if isinstance(error, EndedError):
        return f"{error}; it was restarted"
    code = find_exit_code(servers, model)
    if code is None and not isinstance(error, NotReadyError):
        return None
    try:
        servers.restart(model)
    except NotReadyError as why:
        raise NotHealedError(f"{why}\nstill broken: {model} is down; by hand: `lab up {model}`") from error
    return f"{'it hung' if code is None else f'it ended with exit code {code}'}, and was restarted: {error}"


def _measure_ping(backend: Backend, model: str, fault: Fault, seed: int, moment: float, *, control: bool) -> Score:
    """Measure by another client's PING, before and during the fault."""
    address = find_address(backend, model)
    quiet = measure_ping(backend.helpers, address)
    with injected(fault, backend, model, control=control) as interval:
        loaded = measure_ping(backend.helpers, address)
    verdict, reason = judge_cost(quiet, loaded)
    if interval.ended is not None:
        verdict, reason = judge(fault, None, None, interval.ended)
    return Score(model, fault.name, verdict, reason, seed, moment, control, interval.ended, interval=interval)


def _measure(
    backend: Backend, model: str, fault: Fault, seed: int, moment: float, probe: ProbeReader | None, *, control: bool
) -> Score:
    address = find_address(backend, model)
    rules = fault.for_control() if control else fault
    arguments = [
        "python",
        "-m",
        "lab.clients.request_log",
        address,
        "--connections",
        str(_CONNECTIONS),
        "--seed",
        str(seed),
        "--seconds",
        f"{_REQUEST_LOG_TIMEOUT}",
    ]
    with backend.helpers.start("the request log", arguments) as request_log:
        request_log.wait_for(Begun, _REQUEST_LOG_TIMEOUT)
        if probe:
            probe.wait_quiet()
        time.sleep(moment)
        request_log.tell(Mark())
        request_log.wait_for(Marked, _REQUEST_LOG_TIMEOUT)
        # A fault that ends the model counts from its start. Another one may take long to inject, so it counts from
        # when it is in place.
        if probe and not fault.hold:
            probe.mark("injected")
        with injected(fault, backend, model, control=control) as interval:
            if probe and fault.hold:
                probe.mark("injected")
            time.sleep(fault.hold)
            healing = time.monotonic()
        probe_report = None
        if probe:
            probe.mark("healed")
            probe_report = probe.wait_recovered(RECOVERY_TIMEOUT)
        elif fault.hold:
            time.sleep(_AFTER_SECONDS)  # some load after healing as well
        request_log.tell(End())
        account = _receive_account(request_log)
        recovery = None
        if fault.hold:
            backend.wait_ready(model)
        elif rules.recovery_counts_from:
            assert interval.end_seconds is not None  # noqa: S101 - the block has ended
            since = {RecoveryStart.INJECTION: interval.begin_seconds, RecoveryStart.HEALING: healing}
            recovery = interval.end_seconds - since[rules.recovery_counts_from]
    verdict, reason = judge(rules, account, interval.exit_code, interval.ended)
    allowed = backend.faults.recovery_seconds
    if verdict is Verdict.HELD:
        lasted = (interval.end_seconds or 0.0) - interval.begin_seconds if fault.hold else 0.0
        verdict, others = judge_times(probe_report, allowed, lasted=lasted, silence=account.silence if account else 0.0)
        reason = f"{reason}; {others}"
        if recovery is not None and recovery > allowed:
            verdict, reason = (
                Verdict.DEGRADED,
                f"{reason}; the next answer came after {recovery:.1f} s, allowed are {allowed:g} s",
            )
    return Score(
        model,
        fault.name,
        verdict,
        reason,
        seed,
        moment,
        control,
        interval.exit_code if interval.ended is None else interval.ended,
        recovery,
        account,
        interval,
        probe_report,
    )


def apply_all(
    backend: Backend, models: Sequence[str], faults: Sequence[str], seed: int, *, control: bool = False
) -> Iterator[Score]:
    for model in models:
        with open_optional_probe(backend, model) as probe:
            for fault in faults:
                if (score := apply(backend, model, fault, seed, probe=probe, control=control)) is not None:
                    yield score


def _receive_account(request_log: Helper) -> Account | None:
    with contextlib.suppress(LabError):
        return request_log.wait_for(Account, 2 * _REQUEST_LOG_TIMEOUT)
    return None
