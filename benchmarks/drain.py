"""How many requests a drain, and a kill, leave without an answer. Figures of a run: docs/endurance.md.

    python -m benchmarks.drain [REQUESTS] [MODEL]...

Every model, as a process: eight connections with pipelines; when REQUESTS (100,000) have been answered, SIGTERM or
SIGKILL comes in the middle of it. A request is accepted when it was handed over before the signal, on a connection that
was being served; one client at a time is, where the model serves no more. After SIGTERM each of them must have been
answered, once and in order, and the model must end with exit code 0. After SIGKILL it must be known of each whether it
was.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from lab.base.messages import Message, encode
from lab.clients.request_log import Account, Begun, Mark, Marked, RequestLog, run
from lab.experiments.environment import describe_environment
from lab.experiments.faults.judge import Verdict, judge
from lab.experiments.faults.registry import FAULTS
from lab.servers.backend import Backend
from lab.servers.catalogue import Catalogue
from lab.servers.open import open_backend
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address

CONNECTIONS = 8
SECONDS = 300.0  # until a model that does not exit is given up
ROW = "| {:24} | {:5} | {:>8} | {:>8} | {:>10} | {:>4} | {:>5} | {} |"


def break_under_load(backend: Backend, model: str, fault: str, requests: int, seed: int) -> tuple[Account, int | None]:
    """Log the requests of a running model, and end the model meanwhile.

    Returns:
        The totals of the request log, and the exit code of a drained model.
    """
    (address,) = (
        Address.parse(item.address)
        for item in backend.targets()
        if (item.model, item.service, item.transport) == (model, "command", "tcp")
    )
    with ExitStack() as stack:
        links = [stack.enter_context(BlockingConnection(address, timeout=10)) for _ in range(CONNECTIONS)]
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        codes: list[int] = []
        # `stop` returns when the model has exited, which it does only while its clients go on reading: use a thread.
        stopping = threading.Thread(target=lambda: codes.append(backend.stop(model)))
        end = {"drain": stopping.start, "kill": lambda: backend.faults.kill(model, signal.SIGKILL)}[fault]
        mark = f"{encode(Mark())}\n".encode()
        steps: dict[Message, Callable[[], object]] = {Begun(): lambda: os.write(writer, mark), Marked(): end}
        account = run(RequestLog(links, seed), reader, lambda message: steps[message](), SECONDS, requests=requests)
    if fault == "kill":
        return account, None
    stopping.join()
    return account, codes[0]


def make_row(model: str, fault: str, account: Account, verdict: Verdict) -> str:
    """Return a row of the table. After a kill no request counts as lost."""
    figures = [f"{value:,}" for value in (account.sent, account.answered, account.unanswered)]
    lost = str(account.lost) if fault == "drain" else "-"
    return ROW.format(model, fault, *figures, lost, sum(account.wrong.values()), verdict)


def main(requests: int, models: Sequence[str]) -> None:
    """Print a row for each model and fault. Exit with code 1 if a verdict is not `held`."""
    backend = open_backend("process", "drain", catalogue=Catalogue.load())
    chosen = [model.name for model in backend.catalogue.select(models) if not model.only_in_container]
    print(describe_environment(), file=sys.stderr)
    print(ROW.format("model", "fault", "sent", "answered", "unanswered", "lost", "wrong", "verdict"))
    verdicts = set()
    try:
        for seed, model in enumerate(chosen):
            for fault in ("drain", "kill"):
                backend.up([model])
                account, code = break_under_load(backend, model, fault, requests, seed)
                verdict, _ = judge(FAULTS[fault], account, code)
                verdicts.add(verdict)
                print(make_row(model, fault, account, verdict), flush=True)
                backend.down()
    finally:
        backend.down()
    sys.exit(verdicts != {Verdict.HELD})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2:])
