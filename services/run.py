"""The only way to start a model: `python -m services.run --model NAME --listen SERVICE=ADDRESS ...`.

The first line on stdout is one JSON object: what really runs. The log goes to stderr. A stop signal (SIGTERM, SIGINT,
SIGHUP, SIGQUIT) lets what is in flight finish within the grace period: exit code 0, or 1 if something had to be cut
off. What cannot be started is one line on stderr and exit code 2.
"""

import services.before  # isort: skip  # first: one model replaces parts of the standard library

import argparse
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import services.models
from services.protocol import LimitError, Limits
from services.serving.listeners import Listener, ListenError, open_listeners, parse_listens
from services.serving.signals import hold_stop_signals, stop_signals

_STARTED = time.monotonic()
PYTHON = ".".join(map(str, sys.version_info[:3]))


class StartError(Exception):
    """The server cannot be started as asked; the message says what to change."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartError(message)


def model_names() -> list[str]:
    """Return the names of the models: the modules of `services.models`."""
    directory = Path(services.models.__path__[0])
    return sorted(path.stem for path in directory.glob("*.py") if path.stem != "__init__")


def has_gil() -> bool:
    """Return whether threads share a GIL. Ask each time: an extension module can enable it again."""
    asked: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    return asked is None or asked()


def load_model(name: str) -> ModuleType:
    """Import a model.

    Raises:
        StartError: there is none of that name, its library is not installed, or the interpreter is not one for it.
    """
    if name not in model_names():
        raise StartError(f"unknown model {name!r}; the models are {', '.join(model_names())}")
    try:
        model = importlib.import_module(f"services.models.{name}")
    except ModuleNotFoundError as error:
        raise StartError(f"model {name} needs {error.name}, which is not installed: pip install {error.name}") from None
    if getattr(model, "NEEDS_NO_GIL", False) and has_gil():
        raise StartError(
            f"model {name} needs a Python without the GIL, and this one, {PYTHON}, has it: {sys.executable}"
        )
    return model


def when_full(model: ModuleType) -> str:
    """Return what happens to a client above `Limits.connections`: `wait`, in the backlog, or `refuse`."""
    policy: str = getattr(model, "WHEN_FULL", "wait")
    return policy


def loop_name(model: ModuleType) -> str | None:
    """Return the full name of the model's event loop, its LOOP: a class, a function or a name; None without one."""
    loop: Any = getattr(model, "LOOP", None)
    return loop if loop is None or isinstance(loop, str) else f"{loop.__module__}.{loop.__qualname__}"


def describe(name: str, model: ModuleType, listeners: Sequence[Listener], limits: Limits) -> dict[str, object]:
    """Describe the running server, as data."""
    libraries: tuple[str, ...] = getattr(model, "LIBRARIES", ())
    if libraries:
        # Its import takes longer than the start of most models.
        from importlib.metadata import version
    return {
        "model": name,
        "pid": os.getpid(),
        "python": PYTHON,
        "implementation": sys.implementation.name,
        "gil": has_gil(),
        "libraries": {library: version(library) for library in libraries},
        "event_loop": loop_name(model),
        "listeners": [
            {"service": each.service, "transport": each.address.transport, "address": str(each.address)}
            for each in listeners
        ],
        "when_full": when_full(model),
        "limits": limits.as_dict(),
    }


def _info(name: str, model: ModuleType, limits: Limits) -> str:
    """Return INFO's lines about the server. They are read each time, because a fork changes the process."""
    server = {"model": name, "python_version": PYTHON, "gil_enabled": int(has_gil()), "process_id": os.getpid()}
    server["uptime_in_seconds"] = int(time.monotonic() - _STARTED)
    lines = ["# Server", *(f"{key}:{value}" for key, value in server.items())]
    lines += ["# Limits", *(f"{key}:{value}" for key, value in limits.as_dict().items())]
    lines.append(f"when_full:{when_full(model)}")
    return "".join(f"{line}\r\n" for line in lines)


def record_if_asked(listeners: list[Listener], model: str) -> list[Listener]:
    """Return the listeners; with `LAB_XRAY` in the environment, those whose connections are recorded.

    Raises:
        StartError: the recording cannot be written.
    """
    folder = os.environ.get("LAB_XRAY")
    if not folder:
        return listeners
    from services.serving.recorder import record  # needed by few

    try:
        return record(listeners, folder, model, has_gil=has_gil())
    except OSError as error:
        raise StartError(f"LAB_XRAY={folder}: cannot write a recording there: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a stop signal; returns the exit code."""
    parser = _Parser(prog="python -m services.run", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default=os.environ.get("LAB_MODEL"), help="default: $LAB_MODEL")
    parser.add_argument("--listen", action="append", default=[], metavar="SERVICE=ADDRESS", help="may be repeated")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Until the model has its own handlers, being asked to stop is not an error.
    for number in stop_signals():
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        options = parser.parse_args(arguments)
        if not options.model:
            raise StartError(f"--model is missing; the models are {', '.join(model_names())}")
        wanted = parse_listens(options.listen, options.model)
        if not wanted:
            raise StartError("--listen is missing, for example --listen echo=tcp://127.0.0.1:7007")
        limits = Limits.from_environ(os.environ)
        model = load_model(options.model)
        with open_listeners(wanted, limits, partial(_info, options.model, model, limits)) as listeners:
            served = record_if_asked(listeners, options.model)
            print(json.dumps(describe(options.model, model, listeners, limits)), flush=True)
            try:
                model.serve(served)
            finally:
                hold_stop_signals()  # until the files of sockets are removed
    except (StartError, ListenError, LimitError) as error:
        print(f"services.run: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as exit_:
        if threading.active_count() == 1:
            raise
        # A thread that computes cannot be stopped, only left behind.
        logging.shutdown()
        os._exit(exit_.code if isinstance(exit_.code, int) else 1)
    sys.exit(code)
