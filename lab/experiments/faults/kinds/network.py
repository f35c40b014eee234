"""What a network does to those who use it, in the model's own network namespace; what a model sends or receives.

nftables drops packets, tc(8) makes them late or few. Both come from an instrument that joins the namespace for a
moment, since no model has the capability. `tc` needs modules that not every kernel has (sch_netem, sch_tbf): then it is
not known.
"""

from functools import partial

from lab.base.errors import LabError
from lab.experiments.faults.fault import CannotApplyError, Fault, Injection, only_in_container
from lab.servers.backend import Backend

_TABLE = "lab_fault"
_NAMESPACE = "a network of its own"
# What the kernel, or tc for it, says of a discipline that it does not have.
_LACKING = ("qdisc kind is unknown", "not supported", "No such file or directory", "Unknown qdisc")


def _drop(rule: str, backend: Backend, model: str) -> Injection:
    only_in_container(backend, _NAMESPACE)
    # -n: numbers are not looked up. To destroy what is not there is no error; an old kernel has only `delete`.
    table = f"add table inet {_TABLE}; delete table inet {_TABLE};"
    chain = f"{table} add table inet {_TABLE}; add chain inet {_TABLE} in"
    hook = "{ type filter hook input priority 0; }"
    dropping = f"add rule inet {_TABLE} in iifname != lo {rule}"
    # In a chain that no packet comes to, and gone with the same command: does the kernel have all that the rule needs?
    _try(backend, model, ["nft", f"{chain}; {dropping}; delete table inet {_TABLE}"])
    return Injection(
        lambda: _do(backend, model, ["nft", f"{chain} {hook}; {dropping}"]),
        lambda: _run(backend, model, ["nft", table]),
        f"`lab down`, `lab up {model}`",
        f"packets to {model} are dropped",
    )


def _shape(discipline: str, backend: Backend, model: str) -> Injection:
    only_in_container(backend, _NAMESPACE)
    # On the loopback interface of the namespace, which nobody uses: whether the kernel has it at all.
    _try(backend, model, ["tc", "qdisc", "replace", "dev", "lo", "root", *discipline.split()])
    _run(backend, model, ["tc", "qdisc", "del", "dev", "lo", "root"])
    # One that was put back on its network may have another name.
    device = next(name for name in _run(backend, model, ["ls", "/sys/class/net"]).split() if name != "lo")
    # `del` fails where there is nothing; what counts is that it is not there any more.
    clear = f"tc qdisc del dev {device} root 2>&1; ! tc qdisc show dev {device} | grep {discipline.split()[0]}"
    return Injection(
        lambda: _do(backend, model, ["tc", "qdisc", "replace", "dev", device, "root", *discipline.split()]),
        lambda: _run(backend, model, ["sh", "-c", clear]),
        f"`lab down`, `lab up {model}`",
        f"what {model} sends is under `{discipline}`",
    )


def _try(backend: Backend, model: str, command: list[str]) -> None:
    try:
        _run(backend, model, command)
    except LabError as error:
        if any(word in str(error) for word in _LACKING):
            raise CannotApplyError(f"this kernel has not what `{' '.join(command)}` needs: {error}") from None
        raise


def _run(backend: Backend, model: str, command: list[str]) -> str:
    return backend.run_in_network(model, command)


def _do(backend: Backend, model: str, command: list[str]) -> None:
    _run(backend, model, command)


def _disconnect(backend: Backend, model: str) -> Injection:
    only_in_container(backend, "a network that it can be taken from")
    return Injection(
        lambda: backend.disconnect(model),
        lambda: backend.connect(model),
        f"`lab down`, `lab up {model}`",
        f"{model} is on no network",
    )


DISCONNECT = Fault("disconnect", "taken from the network, and put back", _disconnect, hold=0.5, keeps=False)
BLACKHOLE = Fault("blackhole", "packets to it vanish, its connections stay", partial(_drop, "counter drop"), hold=0.5)
LOSS = Fault(
    "loss",
    "one packet to it in ten is lost",
    partial(_drop, "numgen random mod 100 < 10 counter drop"),
    hold=0.5,
)
LATENCY = Fault("latency", "what it sends is 100 ms late", partial(_shape, "netem delay 100ms"), hold=0.5)
JITTER = Fault(
    "jitter", "what it sends is 50 ms late, give or take 40", partial(_shape, "netem delay 50ms 40ms"), hold=0.5
)
BANDWIDTH = Fault(
    "bandwidth", "it may send 1 Mbit/s", partial(_shape, "tbf rate 1mbit burst 32kbit latency 400ms"), hold=0.5
)
