"""Ready means: a protocol exchange was answered. A listening port proves nothing, a running process still less.

    python -m lab.servers.readiness '{"timeout": 20, "targets": [["plain_socket", "command", "tcp://plain_socket:6379"]]}'

The command runs inside the lab's network, and prints a JSON object a line as each model gets ready or the time is up.
Its start is a part of every `lab up`, so it imports little.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue

from lab.base.errors import LabError
from lab.clients.call import call
from loadtests.sockets.errors import ClientError, NoAnswerError

# (model, service, address)
Target = tuple[str, str, str]

# A server is some 100 ms from its start to its first accept: a shorter pause takes CPU from it, a longer one is what
# `lab up` would wait in vain.
_PAUSE = 0.04
# How long the first attempt may take; each further one gets twice the time. A connection request can be lost while the
# network of a new container is being set up, and TCP repeats it only after a second.
_FIRST_ATTEMPT = 0.1

# What is asked of a service, and in this order of preference: command and echo prove both directions.
_QUESTIONS: dict[str, tuple[str, ...]] = {"command": ("PING",), "echo": ("ready?",), "greet": (), "chargen": ("1",)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one model did.

    Args:
        ready: it answered on each of its targets.
        seconds: until then, or until the time was up.
        error: why the last exchange failed that was given its time; None if ready.
    """

    model: str
    ready: bool
    seconds: float
    error: str | None = None


def choose_targets(listeners: Iterable[Target]) -> list[Target]:
    """Of everything that the models listen on, what to ask: one service over TCP and over Unix sockets."""
    best: dict[tuple[str, str], Target] = {}
    order = list(_QUESTIONS)
    for target in listeners:
        model, service, address = target
        transport = address.partition(":")[0]
        if transport not in ("tcp", "unix") or service not in order:
            continue
        known = best.get((model, transport))
        if known is None or order.index(service) < order.index(known[1]):
            best[model, transport] = target
    return list(best.values())


def wait_ready(
    targets: Iterable[Target], timeout: float, *, on_outcome: Callable[[Outcome], None] | None = None
) -> list[Outcome]:
    """Wait until each model has answered on all of its targets; all models at once.

    Args:
        targets: what to ask, several lines a model.
        timeout: seconds for all of it.
        on_outcome: called in this thread for each model as it gets ready, or is given up.

    Returns:
        One outcome a model, in the order of `targets`.
    """
    begin = time.monotonic()
    by_model: dict[str, list[Target]] = {}
    for target in targets:
        by_model.setdefault(target[0], []).append(target)
    finished: SimpleQueue[Outcome] = SimpleQueue()
    errors: dict[str, str] = {}

    def give_up(model: str) -> Outcome:
        return Outcome(model, False, timeout, errors.get(model, "gave no sign"))

    def wait_for(model: str) -> None:
        for _, service, address in by_model[model]:
            attempt = _FIRST_ATTEMPT
            while True:
                left = begin + timeout - time.monotonic()
                if left <= 0:
                    finished.put(give_up(model))
                    return
                try:
                    reply = call(service, address, _QUESTIONS[service], timeout=min(left, attempt))
                except ClientError as error:
                    # A wait that the end of all time cut short says nothing; what went wrong before it does.
                    if not (isinstance(error, NoAnswerError) and left < attempt and model in errors):
                        errors[model] = str(error)
                else:
                    if not reply.is_error:
                        break
                    errors[model] = f"{address}: {reply.value!s}"
                attempt *= 2
                time.sleep(_PAUSE)
        finished.put(Outcome(model, True, time.monotonic() - begin))

    # Daemon threads: one that hangs in name resolution, which has no timeout, must not hold up the end.
    for model in by_model:
        threading.Thread(target=wait_for, args=[model], name=f"ready-{model}", daemon=True).start()
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < len(by_model):
        try:
            outcome = finished.get(timeout=max(0.0, begin + timeout - time.monotonic()))
        except Empty:
            break
        outcomes[outcome.model] = outcome
        if on_outcome:
            on_outcome(outcome)
    for model in by_model:
        if model not in outcomes:
            outcomes[model] = give_up(model)
            if on_outcome:
                on_outcome(outcomes[model])
    return [outcomes[model] for model in by_model]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if all models got ready, 1 if not, 2 if it was asked wrongly."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        request = json.loads(words[0])
        targets = [(str(model), str(service), str(address)) for model, service, address in request["targets"]]
        timeout = float(request["timeout"])
    except (IndexError, KeyError, TypeError, ValueError):
        print(
            'usage: python -m lab.servers.readiness \'{"timeout": SECONDS, "targets": [[MODEL, SERVICE, URL]]}\'',
            file=sys.stderr,
        )
        return 2
    try:
        outcomes = wait_ready(
            targets, timeout, on_outcome=lambda outcome: print(json.dumps(asdict(outcome)), flush=True)
        )
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(outcome.ready for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
