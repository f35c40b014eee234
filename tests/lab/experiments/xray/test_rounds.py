"""How often a scene is played, what the programs are asked, and what becomes of what they print. No server runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.experiments.xray import record as module
from lab.experiments.xray.analysis import _STATES
from lab.experiments.xray.record import choose_folder, find_address, make_recordings, record, record_target
from lab.experiments.xray.scenes import SCENES
from lab.experiments.xray.strace import Log
from lab.metrics.socket_owner import Owner
from lab.servers.backend import Completed, Servers
from lab.servers.catalogue import Listener
from services.protocol import Address
from tests.support.fakes import UnusedBackend
from tests.support.made_up_xray import MS

LOOKS = {"threads": [], "faults": ["y"], "machine": "x86_64", "look": 10}


def make_play(first: int = 2, ended: str = "") -> str:
    """Return what the player prints of one round.

    Args:
        first: the millisecond in which A sends. B does in the fourth.
    """
    clients = [
        {"name": name, "does": "", "port": port, "error": ""}
        | {"connecting": 0, "connected": 1, "sent": [sent * MS], "answered": 20 * MS, "closed": closed * MS}
        for name, port, sent, closed in (("A", 7, first, 30), ("B", 8, 4, 25))
    ]
    played = {"rounds": [clients], "ended": ended, "processes": [], "faults": ["x"], "clock": 1}
    return json.dumps(played | {"clocks": [[0, 0], [0, 0]]})


@dataclass
class FakeLab(UnusedBackend):
    """A lab of containers that notes what it runs.

    Args:
        plays: what the player prints, one after the other.
        code: of the script that looks at a process of this machine.
        refused: why nothing can run beside the server.
    """

    name = "docker"
    plays: list[str] = field(default_factory=list)
    code: int = 0
    refused: str = ""
    done: list[tuple[str, Any]] = field(default_factory=list)

    def targets(self) -> list[Listener]:
        return [
            Listener("m", "command", "udp", "udp://10.0.0.1:1"),
            Listener("m", "echo", "tcp", "tcp://10.0.0.1:2"),
            Listener("other", "command", "tcp", "tcp://10.0.0.2:3"),
            Listener("m", "command", "tcp", "tcp://10.0.0.1:4"),
        ]

    def run(self, arguments: Sequence[str], *, capture: bool, timeout: float) -> Completed:
        assert (capture, timeout) == (True, 60.0)
        if arguments[1] == "-m":
            self.done.append(("play", json.loads(arguments[3])))
            return Completed(arguments, 0, self.plays.pop(0), "")
        if "os.remove" in arguments[2]:
            self.done.append(("clear", [path for path in arguments[2].split("'") if path.startswith("/")]))
            return Completed(arguments, 0, "", "")
        assert "class Sampler" in arguments[2]
        self.done.append(("look", arguments[3:]))
        return Completed(arguments, self.code, json.dumps(LOOKS), "Traceback\nno such process\n")

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        assert "class Sampler" in script
        if self.refused:
            raise LabError(self.refused)
        self.done.append((f"look at {model}", arguments))
        return json.dumps(LOOKS)

    def count(self, what: str) -> int:
        return sum(name == what for name, _ in self.done)


def test_scene_is_played_again_until_its_clients_have_come_in_time() -> None:
    lab = FakeLab(plays=[make_play(5), make_play(5), make_play(), make_play()])
    found = record(lab, "m", SCENES["sleep"], "/run/{model}", rounds=5, machine={"cores": "2"})
    # What the sampler and the player tell each other by must not be there from the time before.
    for number in (0, 3, 6):
        step = lab.done[number : number + 3]
        assert step[0] == ("clear", ["/run/m/sampling", "/run/m/done"])
        assert ("look at m", ["/run/m", "0.001"]) in step
        request = {"scene": "sleep", "host": "10.0.0.1", "port": 4, "folder": "/run/m", "rounds": 5, "sampler": True}
        assert ("play", request) in step
    assert len(lab.done) == 9
    assert [client.sent for client in found.clients] == [(2 * MS,), (4 * MS,)]
    assert found.missing == ("x", "y", "the server's side: it left no notes")
    assert (found.model, found.scene, found.backend, found.machine) == ("m", "sleep", "docker", {"cores": "2"})
    # Until all have closed: A does after B.
    assert found.end == 30 * MS


def test_scene_is_played_four_times_at_most() -> None:
    lab = FakeLab(plays=[make_play(5)] * 9)
    found = record(lab, "m", SCENES["sleep"], "/run/{model}")
    assert lab.count("play") == 4
    assert found.missing[-1] == "clients came late in each round: this machine was too busy"
    assert found.machine == {}


def test_server_that_has_ended_is_not_asked_again() -> None:
    lab = FakeLab(plays=[make_play(5, ended="Connection refused")] * 9)
    found = record(lab, "m", SCENES["sleep"], "/run/{model}")
    assert lab.count("play") == 1
    assert found.has_ended
    assert "the rounds after number 1: the server ended: Connection refused" in found.missing


def test_server_beside_which_nothing_can_run_is_recorded_without_its_threads() -> None:
    lab = FakeLab(plays=[make_play()], refused="it has no shell")
    found = record(lab, "m", SCENES["sleep"], "/run/{model}")
    assert (found.missing[:2], found.threads) == (("x", "the kernel's side: it has no shell"), ())


@pytest.mark.parametrize(
    ("owner", "code", "is_sampled", "missing"),
    [
        (Owner(pid=9), 0, True, "y"),
        (Owner(pid=9), 1, True, "the kernel's side: no such process"),
        (Owner(unknown="on the moon"), 0, False, "the kernel's side: on the moon"),
        (Owner(), 0, False, "the kernel's side: it does not run as a process of this machine"),
    ],
)
def test_player_waits_for_the_sampler_if_there_is_one(owner: Owner, code: int, is_sampled: bool, missing: str) -> None:
    lab = FakeLab(plays=[make_play()], code=code)
    address = Address.parse("tcp://10.0.0.9:1")
    found = record_target(lab, address, SCENES["echo"], owner, rounds=5, machine={"cores": "2"})
    ((_, request),) = [each for each in lab.done if each[0] == "play"]
    folder = request.pop("folder")
    sampler = {"sampler": True} if is_sampled else {}
    assert request == {"scene": "echo", "host": "10.0.0.9", "port": 1, "rounds": 5} | sampler
    assert [each for each in lab.done if each[0] == "look"] == [("look", ["9", folder, "0.001"])] * is_sampled
    assert found.missing == ("x", missing, "the server's side: it left no notes")
    assert (found.model, found.scene, found.backend, found.machine) == (
        "tcp://10.0.0.9:1",
        "echo",
        "process",
        {"cores": "2"},
    )


def test_address_is_that_of_the_service_over_tcp() -> None:
    assert str(find_address(FakeLab(), "m", SCENES["sleep"])) == "tcp://10.0.0.1:4"
    assert str(find_address(FakeLab(), "m", SCENES["echo"])) == "tcp://10.0.0.1:2"
    with pytest.raises(LabError, match="other does not listen for echo over tcp: `lab ls other`"):
        find_address(FakeLab(), "other", SCENES["echo"])


def test_folder_of_the_notes_is_where_both_sides_can_reach_it(tmp_path: Any) -> None:
    inside, outside = (cast(Servers, SimpleNamespace(in_containers=each)) for each in (True, False))
    assert choose_folder(inside, tmp_path) == "/run/lab/xray/{model}"
    assert choose_folder(outside, tmp_path) == f"{tmp_path}/xray/{{model}}"


def test_port_that_is_used_again_belongs_to_the_round_in_which_it_was_opened() -> None:
    """A kernel may give the port of a client to another one of the next round."""
    client = {"name": "A", "does": "PING", "port": 7, "error": ""}
    rounds = [
        [client | {"connecting": at, "connected": at + 1, "sent": [at + 2], "answered": at + 5, "closed": at + 6}]
        for at in (1000, 2000)
    ]
    notes = [[1003, 5, "OPENED", 1, 7], [1004, 5, "SEND", 1, 7], [2003, 5, "OPENED", 2, 7], [2004, 5, "SEND", 2, 7]]
    played = json.loads(make_play()) | {
        "rounds": rounds,
        "processes": [{"pid": 9, "has_gil": True, "notes": notes}],
    }
    _, second = make_recordings(played, LOOKS, Log(), model="m", scene="sleep", date="d", backend="process")
    assert [(note.time, note.connection) for note in second.processes[0].notes] == [(3, 2), (4, 2)]


def test_states_without_system_calls_are_those_of_proc() -> None:
    """From /proc/PID/syscall, or its letter in /proc/PID/stat."""
    calls = {202: "futex"}
    found = [module._name_state(state, calls) for state in ("running", "R", "-1", "S", "D", "202", "999", "Z")]
    assert found == ["running", "running", "blocked", "asleep", "disk", "futex", "system call 999", "Z"]


# Of Linux's syscall_64.tbl and of its unistd.h for all newer machines, by name.
NUMBERS = {
    "x86_64": {"read": 0, "recvfrom": 45, "recvmsg": 47, "accept": 43, "accept4": 288, "fcntl": 72, "futex": 202}
    | {"write": 1, "writev": 20, "sendto": 44, "sendmsg": 46, "nanosleep": 35, "clock_nanosleep": 230}
    | {"poll": 7, "ppoll": 271, "select": 23, "pselect6": 270}
    | {"epoll_wait": 232, "epoll_pwait": 281, "epoll_pwait2": 441}
    | {"clone": 56, "fork": 57, "clone3": 435, "wait4": 61, "waitid": 247},
    "aarch64": {"read": 63, "recvfrom": 207, "recvmsg": 212, "accept": 202, "accept4": 242, "fcntl": 25, "futex": 98}
    | {"write": 64, "writev": 66, "sendto": 206, "sendmsg": 211, "nanosleep": 101, "clock_nanosleep": 115}
    | {"ppoll": 73, "pselect6": 72, "epoll_pwait": 22, "epoll_pwait2": 441}
    | {"clone": 220, "clone3": 435, "wait4": 260, "waitid": 95},
}


@pytest.mark.parametrize("machine", NUMBERS)
def test_system_calls_have_the_numbers_of_the_machine(machine: str) -> None:
    assert {name: number for number, name in module._CALLS[machine].items()} == NUMBERS[machine]


def test_every_system_call_with_a_meaning_has_a_number() -> None:
    assert set(_STATES) - {"running"} <= set(NUMBERS["x86_64"])
