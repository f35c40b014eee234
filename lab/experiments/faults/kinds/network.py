"""Network faults, injected into the model's own network namespace.

nftables drops packets that the model receives; tc(8) delays or limits packets that it sends. Both run in a helper
container that joins the namespace, since models lack the capability (NET_ADMIN). `tc` needs kernel modules that not
every kernel has (sch_netem, sch_tbf); without them the score is unknown.
"""

from functools import partial

from lab.base.errors import LabError
from lab.experiments.faults.fault import CannotApplyError, Fault, Injection, require_container
from lab.servers.backend import Backend, ContainerControls

_TABLE = "lab_fault"
_NAMESPACE = "its own network namespace"
# Error messages of tc and the kernel for a missing queueing discipline.
_UNSUPPORTED = ("qdisc kind is unknown", "not supported", "No such file or directory", "Unknown qdisc")


def _drop(rule: str, backend: Backend, model: str) -> Injection:
    container = require_container(backend.faults, _NAMESPACE)
    # `add` before `delete`, which fails if the table is missing; `destroy` would not, but old kernels lack it.
    table = f"add table inet {_TABLE}; delete table inet {_TABLE};"
    chain = f"{table} add table inet {_TABLE}; add chain inet {_TABLE} in"
    hook = "{ type filter hook input priority 0; }"
    dropping = f"add rule inet {_TABLE} in iifname != lo {rule}"
    # Test whether the kernel supports the rule, in a chain without a hook that is deleted in the same command.
    _try(container, model, ["nft", f"{chain}; {dropping}; delete table inet {_TABLE}"])
    return Injection(
        lambda: _inject(container, model, ["nft", f"{chain} {hook}; {dropping}"]),
        lambda: _run(container, model, ["nft", table]),
        f"`lab down`, `lab up {model}`",
        f"packets to {model} are dropped",
    )


def _shape(discipline: str, backend: Backend, model: str) -> Injection:
    container = require_container(backend.faults, _NAMESPACE)
    # Test whether the kernel supports the discipline, on the unused loopback interface of the namespace.
    _try(container, model, ["tc", "qdisc", "replace", "dev", "lo", "root", *discipline.split()])
    _run(container, model, ["tc", "qdisc", "del", "dev", "lo", "root"])
    # The interface may have another name after `disconnect`.
    device = next(name for name in _run(container, model, ["ls", "/sys/class/net"]).split() if name != "lo")
    # `del` fails if there is none; the test is that none is left.
    clear = f"tc qdisc del dev {device} root 2>&1; ! tc qdisc show dev {device} | grep {discipline.split()[0]}"
    return Injection(
        lambda: _inject(container, model, ["tc", "qdisc", "replace", "dev", device, "root", *discipline.split()]),
        lambda: _run(container, model, ["sh", "-c", clear]),
        f"`lab down`, `lab up {model}`",
        f"packets from {model} are subject to `{discipline}`",
    )


def _try(container: ContainerControls, model: str, command: list[str]) -> None:
    try:
        _run(container, model, command)
    except LabError as error:
        if any(word in str(error) for word in _UNSUPPORTED):
            raise CannotApplyError(f"this kernel does not support `{' '.join(command)}`: {error}") from None
        raise


def _run(container: ContainerControls, model: str, command: list[str]) -> str:
    return container.run_in_network(model, command)


def _inject(container: ContainerControls, model: str, command: list[str]) -> None:
    _run(container, model, command)


def _disconnect(backend: Backend, model: str) -> Injection:
    container = require_container(backend.faults, "a network to be disconnected from")
    return Injection(
        lambda: container.disconnect(model),
        lambda: container.connect(model),
        f"`lab down`, `lab up {model}`",
        f"{model} is disconnected from its network",
    )


DISCONNECT = Fault(
    "disconnect", "disconnected from the network and reconnected", _disconnect, hold=0.5, keeps_connections=False
)
BLACKHOLE = Fault(
    "blackhole", "packets to it are dropped, connections stay open", partial(_drop, "counter drop"), hold=0.5
)
LOSS = Fault(
    "loss",
    "10 % of the packets to it are dropped",
    partial(_drop, "numgen random mod 100 < 10 counter drop"),
    hold=0.5,
)
LATENCY = Fault("latency", "packets from it are delayed by 100 ms", partial(_shape, "netem delay 100ms"), hold=0.5)
JITTER = Fault(
    "jitter", "packets from it are delayed by 50 ± 40 ms", partial(_shape, "netem delay 50ms 40ms"), hold=0.5
)
BANDWIDTH = Fault(
    "bandwidth", "it can send at most 1 Mbit/s", partial(_shape, "tbf rate 1mbit burst 32kbit latency 400ms"), hold=0.5
)
