"""A backend that notes what it is asked to do, over a clock that goes on only when it is told to."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, cast

import pytest

from lab.base.messages import Message, encode
from lab.clients.request_log import Account, Begun, Marked
from lab.clients.slow_clients import Connected
from lab.servers import helper
from lab.servers.backend import READY_SECONDS, Completed, ContainerControls, FaultControls, Helpers, ModelState
from lab.servers.catalogue import Catalogue, Listener
from lab.servers.helper import Helper

CATALOGUE = Catalogue.load()


@dataclass
class Clock:
    """What stands for the module `time`; `sleep` is what makes time pass."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def set_clock(monkeypatch: pytest.MonkeyPatch, folder: Path, *modules: ModuleType) -> Clock:
    """Give modules one clock, and the lab a folder of its own for what it notes."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    clock = Clock()
    for module in (*modules, helper):
        monkeypatch.setattr(module, "time", clock)
    return clock


class FakeLog:
    """A file in memory, which closes itself."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("log")

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    def __del__(self) -> None:
        os.close(self._descriptor)


class FakeProcess:
    """A process that runs until `code` is set. It answers what it reads on stdin at once.

    Args:
        log: gets the answers.
        answer: returns the messages and other lines that answer a message.
    """

    def __init__(self, log: FakeLog, answer: Callable[[str], Iterable[Message | str]]) -> None:
        self._log, self._answer = log, answer
        self.stdin = self
        self.code: int | None = None
        self.waited: list[float | None] = []
        self.is_closed = False

    def poll(self) -> int | None:
        return self.code

    def wait(self, seconds: float | None = None) -> int:
        self.waited.append(seconds)
        return self.code or 0

    def write(self, data: bytes) -> None:
        if self.code is not None:
            raise BrokenPipeError
        for line in data.decode().splitlines():
            self.say(*self._answer(line))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def say(self, *lines: Message | str) -> None:
        for line in lines:
            self._log.write(f"{encode(line) if isinstance(line, Message) else line}\n".encode())


class FakeHelper(Helper):
    """A helper without a process; see `FakeProcess`."""

    def __init__(self, name: str, answer: Callable[[str], Iterable[Message | str]] = lambda line: ()) -> None:
        log = FakeLog()
        self.program = FakeProcess(log, answer)
        super().__init__(name, cast(Any, self.program), "127.0.0.1", cast(Any, log))

    def say(self, *lines: Message | str) -> None:
        """Write messages and other lines as the program would."""
        self.program.say(*lines)


def kind_of(line: str) -> str:
    """Return the kind of the message in a line."""
    return str(json.loads(line)["kind"])


def refuse(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not expected to be used")


class UnusedBackend:
    """A backend of which nothing may be used; tests override what they expect. It is its own helpers and controls."""

    name = "process"
    project = "fakes"
    catalogue = CATALOGUE
    recovery_seconds = 1.0

    @property
    def in_containers(self) -> bool:
        return self.name == "docker"

    @property
    def helpers(self) -> Helpers:
        return self

    @property
    def faults(self) -> FaultControls:
        return self

    @property
    def container(self) -> ContainerControls | None:
        return self if self.in_containers else None

    def up(self, *_: Any, **__: Any) -> Any:
        refuse("up")

    def up_gallery(self, *_: Any, **__: Any) -> Any:
        refuse("up_gallery")

    def down(self, *_: Any, **__: Any) -> Any:
        refuse("down")

    def state(self, *_: Any, **__: Any) -> Any:
        refuse("state")

    def gallery(self, *_: Any, **__: Any) -> Any:
        refuse("gallery")

    def targets(self, *_: Any, **__: Any) -> Any:
        refuse("targets")

    def logs(self, *_: Any, **__: Any) -> Any:
        refuse("logs")

    def restart(self, *_: Any, **__: Any) -> Any:
        refuse("restart")

    def stop(self, *_: Any, **__: Any) -> Any:
        refuse("stop")

    def wait_ready(self, *_: Any, **__: Any) -> Any:
        refuse("wait_ready")

    def meter(self, *_: Any, **__: Any) -> Any:
        refuse("meter")

    def pin(self, *_: Any, **__: Any) -> Any:
        refuse("pin")

    def environ(self, *_: Any, **__: Any) -> Any:
        refuse("environ")

    def describe(self) -> dict[str, str | None]:
        return {"backend": self.name}

    def describe_models(self, *_: Any, **__: Any) -> Any:
        refuse("describe_models")

    def run(self, *_: Any, **__: Any) -> Any:
        refuse("run")

    def start(self, *_: Any, **__: Any) -> Any:
        refuse("start")

    def run_service(self, *_: Any, **__: Any) -> Any:
        refuse("run_service")

    def start_service(self, *_: Any, **__: Any) -> Any:
        refuse("start_service")

    def choose_bind(self, *_: Any, **__: Any) -> Any:
        refuse("choose_bind")

    def find_shell(self, *_: Any, **__: Any) -> Any:
        refuse("find_shell")

    def kill(self, *_: Any, **__: Any) -> Any:
        refuse("kill")

    def pause(self, *_: Any, **__: Any) -> Any:
        refuse("pause")

    def unpause(self, *_: Any, **__: Any) -> Any:
        refuse("unpause")

    def run_beside(self, *_: Any, **__: Any) -> Any:
        refuse("run_beside")

    def limit_cpu(self, *_: Any, **__: Any) -> Any:
        refuse("limit_cpu")

    def run_in_network(self, *_: Any, **__: Any) -> Any:
        refuse("run_in_network")

    def tracing_command(self, *_: Any, **__: Any) -> Any:
        refuse("tracing_command")

    def disconnect(self, *_: Any, **__: Any) -> Any:
        refuse("disconnect")

    def connect(self, *_: Any, **__: Any) -> Any:
        refuse("connect")

    def memory_limit(self, *_: Any, **__: Any) -> Any:
        refuse("memory_limit")

    def limit_memory(self, *_: Any, **__: Any) -> Any:
        refuse("limit_memory")


@dataclass
class FakeBackend(UnusedBackend):
    """One lab of models that run.

    Args:
        clock: what is done takes `seconds` on it.
        account: what the request log returns at the end.
        seconds: by what is done.
        fails: by what is done, what happens instead.
        exited: exit codes of the models that have ended.
        printed: by the first word of a command, what it prints.
        pings: what `lab.clients.slow_clients --ping` gives, in turn.
        first_lines: what a helper says at its start.
        marked: the answer of the request log to a mark.
    """

    clock: Clock = field(default_factory=Clock)
    account: Account | None = field(default_factory=lambda: Account(8, 8, 1000, 1000))
    name: str = "process"
    project: str = "fakes"
    catalogue: Catalogue = CATALOGUE
    seconds: dict[str, float] = field(default_factory=dict)
    fails: dict[str, Callable[[], object]] = field(default_factory=dict)
    exited: dict[str, int | None] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    pings: list[Completed] = field(default_factory=list)
    stop_code: int = 0
    done: list[tuple[Any, ...]] = field(default_factory=list)
    helpers_started: list[tuple[FakeHelper, Sequence[str]]] = field(default_factory=list)
    first_lines: Sequence[Message | str] = (Begun(), Connected())
    marked: Sequence[Message | str] = (Marked(),)

    def _do(self, name: str, *arguments: object) -> None:
        self.done.append((name, *arguments))
        self.clock.now += self.seconds.get(name, 0.0)
        if name in self.fails:
            self.fails[name]()

    def names(self) -> list[str]:
        """What was done, without the arguments."""
        return [name for name, *_ in self.done]

    def targets(self) -> list[Listener]:
        return [
            Listener(model.name, "command", transport, f"{transport}://{model.name}:6379")
            for model in self.catalogue.models
            for transport in ("udp", "tcp")
        ]

    def state(self) -> list[ModelState]:
        return [
            ModelState(model.name, model.family, self.name, "exited", self.exited[model.name])
            if model.name in self.exited
            else ModelState(model.name, model.family, self.name, "running")
            for model in self.catalogue.models
        ]

    @contextmanager
    def start(self, name: str, arguments: Sequence[str]) -> Iterator[FakeHelper]:
        """Start the request log, or the slow clients."""
        helper = FakeHelper(name, self._answer)
        helper.say(*self.first_lines)
        self.helpers_started.append((helper, arguments))
        self._do("start", *arguments[:3])
        yield helper
        self._do("close", arguments[2])

    def _answer(self, line: str) -> Iterable[Message | str]:
        kind = kind_of(line)
        self.done.append(("request log", kind))
        return {"Mark": self.marked, "End": [self.account] if self.account else ["no account"]}.get(kind, [])

    def run(
        self, arguments: Sequence[str], *, capture: bool = False, timeout: float | None = None, **_: Any
    ) -> Completed:
        self._do("run", *arguments, capture, timeout)
        return self.pings.pop(0)

    def restart(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._do("restart", model)
        self.exited.pop(model, None)

    def stop(self, model: str) -> int:
        self._do("stop", model)
        return self.stop_code

    def kill(self, model: str, number: int) -> None:
        self._do("kill", model, number)

    def wait_ready(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._do("wait_ready", model)

    def pause(self, model: str) -> None:
        self._do("pause", model)

    def unpause(self, model: str) -> None:
        self._do("unpause", model)

    def limit_cpu(self, model: str, cores: float | None) -> None:
        self._do("limit_cpu", model, cores)

    def memory_limit(self, model: str) -> tuple[int, int]:
        self._do("memory_limit", model)
        return 512 << 20, 768 << 20

    def limit_memory(self, model: str, memory: int, swap: int) -> None:
        self._do("limit_memory", model, memory, swap)

    def disconnect(self, model: str) -> None:
        self._do("disconnect", model)

    def connect(self, model: str) -> None:
        self._do("connect", model)

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        self._do("run_beside", model, script, *arguments)
        return self.printed.get("run_beside", "")

    def run_in_network(self, model: str, arguments: Sequence[str]) -> str:
        self._do("run_in_network", model, *arguments)
        return self.printed.get(arguments[0], "")
