"""Wait until models are ready, which means that they have answered a protocol exchange.

A listening port, or a running process, does not prove that.

    python -m lab.servers.readiness '{"timeout": 20, "targets": [["plain_socket", "command", "tcp://plain_socket:6379"]]}'

The command runs inside the lab's network. It sends an `Outcome` for each model when it is ready, or at the timeout.
Its start is a part of every `lab up`, so it imports little.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from lab.base.errors import LabError
from lab.base.messages import Message, say
from lab.clients.call import call
from loadtests.sockets.errors import ClientError, NoAnswerError

# (model, service, address)
Target = tuple[str, str, str]

# Between two attempts, in seconds. A server accepts some 100 ms after its start: a shorter pause takes CPU from it,
# a longer one delays `lab up`.
_RETRY_SECONDS = 0.04
# The timeout of the first attempt; each later one has twice that of the one before. A SYN can be lost while the network
# of a new container is set up, and TCP sends it again only after a second.
_FIRST_TIMEOUT = 0.1

# The request for each service, in order of preference: command and echo prove both directions.
_REQUESTS: dict[str, tuple[str, ...]] = {
    "command": ("PING",),
    "echo": ("ready?",),
    "greet": (),
    "chargen": ("1",),
    "http": (),
}


@dataclass(frozen=True, slots=True)
class Outcome(Message):
    """Whether one model is ready.

    Args:
        ready: it has answered on each of its targets.
        seconds: the time until then, or the timeout.
        error: why the last exchange failed that was not cut short by the end; None if ready.
    """

    model: str
    ready: bool
    seconds: float
    error: str | None = None


def choose_targets(listeners: Iterable[Target]) -> list[Target]:
    """Choose one service of each model over TCP, and one over Unix sockets."""
    best: dict[tuple[str, str], Target] = {}
    order = list(_REQUESTS)
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
    """Wait until each model has answered on all of its targets; all models at the same time.

    Args:
        targets: one or more for each model.
        timeout: seconds for all models together.
        on_outcome: called in this thread for each model when it is ready, or at the timeout.

    Returns:
        One outcome for each model, in the order of `targets`.
    """
    begin = time.monotonic()
    by_model: dict[str, list[Target]] = {}
    for target in targets:
        by_model.setdefault(target[0], []).append(target)
    finished: SimpleQueue[Outcome] = SimpleQueue()
    errors: dict[str, str] = {}

    def give_up(model: str) -> Outcome:
        return Outcome(model, False, timeout, errors.get(model, "no exchange has ended"))

    def wait_for(model: str) -> None:
        for _, service, address in by_model[model]:
            attempt = _FIRST_TIMEOUT
            while True:
                left = begin + timeout - time.monotonic()
                if left <= 0:
                    finished.put(give_up(model))
                    return
                try:
                    reply = call(service, address, _REQUESTS[service], timeout=min(left, attempt))
                except ClientError as error:
                    # An exchange that the end has cut short says nothing; keep the error before it.
                    if not (isinstance(error, NoAnswerError) and left < attempt and model in errors):
                        errors[model] = str(error)
                else:
                    if not reply.is_error:
                        break
                    errors[model] = f"{address}: {reply.value!s}"
                attempt *= 2
                time.sleep(_RETRY_SECONDS)
        finished.put(Outcome(model, True, time.monotonic() - begin))

    # Daemon threads: name resolution has no timeout, and must not delay the end.
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


def describe_silence(model: str, error: str, timeout: float, lines: Iterable[str]) -> str:
    """Return the message about a model that runs and has not answered, with the last lines of its log."""
    return "\n  ".join([f"{model} runs, but gave no answer within {timeout:g} s ({error}); its log ends with:", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if all models are ready, 1 if not, 2 for an invalid request."""
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
        outcomes = wait_ready(targets, timeout, on_outcome=say)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(outcome.ready for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
