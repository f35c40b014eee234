"""Run the covering tests against each fault of some modules, in one process that forks for each fault.

Strategy: to start pytest costs seconds, and a fault needs milliseconds. So the tests are collected and run once, with
coverage by test; then each fault gets a child of this process (fork), which puts the faulty code in the place of
the right one and runs the tests that execute its line until one fails: those that have noticed most, then the quickest.

The faulty module is executed again, and its parts are moved into the module that is there: the code of each function
(the function stays the same object, so every module that has imported it has the faulty one), and constants by name in
every module that has imported them. A process that a test starts runs the right code, so only unit tests count here.

Called as `python -m tools.mutants.session`, with a `Job` as JSON in stdin; prints a line of JSON for each fault.
"""

import ast
import contextlib
import ctypes
import dataclasses
import enum
import fcntl
import functools
import json
import os
import random
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest
from _pytest.runner import runtestprotocol

from lab.servers.children import die_with_lab
from tools.mutants.faults import Mutant, find_mutants, plant

# A test that takes longer, and runs no line of a module, is not asked about its constants.
_SLOWEST = 2.0
# A test that takes longer is not preferred, however many faults it has noticed.
_QUICK = 0.5
# Seconds for a test of one fault, and how many times its own duration: a fault may make a loop endless, and that is
# noticed too.
_TIMEOUT = 5.0
_TIMES = 10.0
# What a child writes before each test.
_BEGUN = b"\0"

_LEAST_DESCRIPTOR = 100

# Of linux/prctl.h.
_PR_SET_CHILD_SUBREAPER = 36

KILLED, SURVIVED, TIMED_OUT, UNCOVERED, UNFIT = "killed", "survived", "timed out", "uncovered", "unfit"
# The time of the whole run was over first: nothing is said of the fault.
UNTRIED = "untried"


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does.

    Args:
        root: folder of the project; it is also where Python looks for modules.
        modules: files whose faults are planted, from the root.
        tests: test files to collect.
        seconds: stop after this time, which includes the run without a fault; None for all faults.
        seed: for the order of the faults where there is not time for all.
        skipped: keys of faults that are left out.
        first: lines of modules whose faults come before all others where there is not time for all.
        further: plant the faults of `tools/mutants/further.py`.
    """

    root: Path
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    seconds: float | None = None
    seed: str = ""
    skipped: frozenset[str] = field(default_factory=frozenset)
    first: Mapping[str, Collection[int]] = field(default_factory=dict)
    further: bool = False


class Session:
    """The pytest plugin that does the work instead of pytest's own loop."""

    def __init__(self, job: Job, report: Any) -> None:
        self.job = job
        self.report = report
        self.durations: dict[str, float] = {}
        self.covering: dict[tuple[str, int], list[pytest.Item]] = {}
        self.items: list[pytest.Item] = []
        self.failed: list[str] = []
        self.kills: Counter[str] = Counter()
        self.deadline = None if job.seconds is None else time.monotonic() + job.seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        # After a failed collection, tests are missing, and faults would survive because of that.
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        self._run_once(session.items)
        if self.failed:
            said = f"without any fault, these tests fail: {', '.join(self.failed)}"
            print(said, file=sys.stderr)  # stdout is the report
            raise session.Failed(said)
        for mutant in self._choose():
            if self._is_over():
                break
            outcome, test = self._try(mutant)
            self.kills[test] += 1
            if outcome != UNTRIED:
                print(json.dumps(asdict(mutant) | {"outcome": outcome, "test": test}), file=self.report, flush=True)
        return True

    def _is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _choose(self) -> list[Mutant]:
        root, further = self.job.root, self.job.further
        found = [mutant for module in self.job.modules for mutant in find_mutants(root / module, root, further=further)]
        found = [mutant for mutant in found if mutant.key not in self.job.skipped]
        if self.job.seconds is not None:
            random.Random(self.job.seed).shuffle(found)  # noqa: S311  # a sample, no secret
            found.sort(key=lambda mutant: mutant.line not in self.job.first.get(mutant.module, ()))
        return found

    def _run_once(self, items: Sequence[pytest.Item]) -> None:
        """Run every test without a fault: how long it takes, and which lines it executes."""
        files = [str(self.job.root / module) for module in self.job.modules]
        recorder = coverage.Coverage(data_file=None, include=files, config_file=False, messages=False)
        recorder.start()
        for item in items:
            if self._is_over():
                break
            recorder.switch_context(item.nodeid)
            started = time.monotonic()
            reports = runtestprotocol(item, log=False, nextitem=None)
            self.durations[item.nodeid] = time.monotonic() - started
            if any(report.failed for report in reports):
                self.failed.append(item.nodeid)
        recorder.stop()
        self.items = sorted(
            (item for item in items if item.nodeid in self.durations), key=lambda item: self.durations[item.nodeid]
        )
        data = recorder.get_data()
        for module, name in zip(self.job.modules, files, strict=True):
            for line, tests in data.contexts_by_lineno(name).items():
                self.covering[module, line] = [item for item in self.items if item.nodeid in tests]

    def _tests_of(self, mutant: Mutant) -> list[pytest.Item]:
        """Give the tests that can notice a fault: those first that have noticed most, and then the quickest."""
        return sorted(
            self._find_tests(mutant),
            key=lambda item: -self.kills[item.nodeid] if self.durations[item.nodeid] < _QUICK else 0,
        )

    def _find_tests(self, mutant: Mutant) -> list[pytest.Item]:
        covering = self.covering.get((mutant.module, mutant.line), []) if mutant.scope else []
        if not self._is_executed_at_import(mutant):
            return covering
        # A constant: the tests that run a line of the module are the most likely to notice it.
        near = {item for (module, _), items in self.covering.items() if module == mutant.module for item in items}
        # All of these: a busy machine makes quick ones slow.
        found = [item for item in self.items if item in near or self.durations[item.nodeid] <= _SLOWEST]
        return sorted(found, key=lambda item: (item not in covering, item not in near))

    @functools.cached_property
    def _import_lines(self) -> set[tuple[str, int]]:
        return {
            (module, line)
            for module in self.job.modules
            for line in _find_lines_at_import(self.job.root / module, self.job.root)
        }

    def _is_executed_at_import(self, mutant: Mutant) -> bool:
        return (mutant.module, mutant.line) in self._import_lines

    def _try(self, mutant: Mutant) -> tuple[str, str]:
        """Plant one fault in a child and run the tests that cover it there."""
        items = self._tests_of(mutant)
        if not items:
            return UNCOVERED, ""
        sys.stdout.flush()
        sys.stderr.flush()
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _be_child(mutant, self.job.root, items, writing)
        os.setpgid(pid, pid)  # the child does so too: whichever comes first, the group exists before it is ended
        os.close(writing)
        os.set_blocking(reading, False)
        said, stopped = b"", ""
        begun, since = 0, time.monotonic()
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            said += _read(reading)
            if said.count(_BEGUN) != begun:
                begun, since = said.count(_BEGUN), time.monotonic()
            # A constant is asked of many tests, so each has a time of its own.
            slow = self.durations[items[min(max(begun, 1), len(items)) - 1].nodeid]
            if time.monotonic() - since > limit_time(slow):
                stopped = TIMED_OUT
            elif self._is_over():
                stopped = UNTRIED
            if stopped:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.001)
        _end_orphans()
        said += _read(reading)
        os.close(reading)
        if stopped:
            return stopped, ""
        words = said.replace(_BEGUN, b"").decode()
        if not words:  # the child died: of the fault
            return KILLED, ""
        outcome, _, test = words.partition(" ")
        return outcome, test


def limit_time(duration: float) -> float:
    """Return the seconds that a test may take with a fault, given what it takes without."""
    return max(_TIMEOUT, _TIMES * duration)


def _read(pipe: int) -> bytes:
    """Give what a pipe holds that does not block."""
    with contextlib.suppress(BlockingIOError):
        return os.read(pipe, 65536)
    return b""


def _end_orphans() -> None:
    """End what the tests of a fault have started and not stopped, since the fault, or its end, came in between."""
    while found := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for pid in map(int, found):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _be_child(mutant: Mutant, root: Path, items: Sequence[pytest.Item], writing: int) -> None:
    """Never return."""
    die_with_lab()  # a fault may make a loop endless: without the session nothing would end it
    os.setpgid(0, 0)
    said = KILLED
    try:
        try:
            put_in_place(mutant, root)
        except ValueError:
            said = UNFIT
        else:
            said = SURVIVED
            for item, following in zip(items, [*items[1:], None], strict=True):
                os.write(writing, _BEGUN)
                if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
                    said = f"{KILLED} {item.nodeid}"
                    break
    except BaseException:  # whatever a fault makes of the tests' own machinery, it was noticed
        said = KILLED
    finally:
        # A process that a faulty test has forked gets here too, perhaps after the reader has closed.
        with contextlib.suppress(OSError):
            os.write(writing, said.encode())
        os._exit(0)


def put_in_place(mutant: Mutant, root: Path) -> None:
    """Replace what a module defines with what it defines with this fault.

    Raises:
        ValueError: the faulty code does not fit in the place of the right one.
    """
    path = root / mutant.module
    module, faulty = _execute(plant(path, mutant.number), path, root)
    for key, new in list(vars(faulty).items()):
        if not key.startswith("__") and key in vars(module):
            old = vars(module)[key]
            found = _move(old, new, module)
            if found is not old:
                _rename(key, old, found, module)


def _execute(tree: ast.Module, path: Path, root: Path) -> tuple[types.ModuleType, types.ModuleType]:
    """Execute a module again, with other code; return the one that is there, and the one that this gives."""
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    module = sys.modules[name]
    made = types.ModuleType(name)
    made.__file__, made.__package__ = str(path), module.__package__
    if hasattr(module, "__path__"):
        made.__path__ = module.__path__
    sys.modules[name] = made  # a dataclass looks its module up while it is made
    try:
        exec(compile(tree, str(path), "exec"), made.__dict__)  # noqa: S102
    finally:
        sys.modules[name] = module
    return module, made


def _move(old: Any, new: Any, module: types.ModuleType) -> Any:
    """Give what stands in the place of what the right code has made: the same object, changed, or a faulty value."""
    name = module.__name__
    if old is new:
        return old
    new = _adopt(new, module)
    if isinstance(old, type):
        if old.__module__ == name:
            for attribute, value in list(vars(new).items()):
                _move_attribute(old, attribute, value, module)
        return old
    function = _function_in(old)
    if function is not None:
        if function.__module__ == name:
            _move_function(function, _function_in(new))
        return old
    if isinstance(old, dict) and isinstance(new, dict):
        # Others hold it too.
        items = {key: _move(old[key], value, module) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(items)
        return old
    if type(old) is type(new) and type(old) in (tuple, list) and len(old) == len(new):
        moved = [_move(value, other, module) for value, other in zip(old, new, strict=True)]
        if all(value is other for value, other in zip(old, moved, strict=True)):
            return old
        return type(old)(moved)
    is_made_here = type(old).__module__ == name and type(new).__name__ == type(old).__name__
    if dataclasses.is_dataclass(old) and (is_made_here or type(new) is type(old)):
        # An object that others hold too: it stays, and gets the values of the faulty one.
        for item in dataclasses.fields(old):
            value = getattr(new, item.name)
            function = _function_in(getattr(old, item.name))
            if function is not None and function.__module__ == name:
                _move_function(function, _function_in(value))
            elif _is_value(value) or dataclasses.is_dataclass(value):
                object.__setattr__(old, item.name, value)
        return old
    return new if _is_value(new) and not _is_same(old, new) else old


def _rename(key: str, old: Any, new: Any, module: types.ModuleType) -> None:
    """Put a value under a name of a module, and of those that have imported it from there."""
    vars(module)[key] = new
    for other in list(sys.modules.values()):
        names = getattr(other, "__dict__", None)
        # A number of the same name in another module may be the same object: is it imported there?
        if isinstance(names, dict) and key in names and names[key] is old and key in _list_imported(other):
            names[key] = new


@functools.cache
def _list_imported(module: types.ModuleType) -> frozenset[str]:
    """Give the names that a module imports from others."""
    path = getattr(module, "__file__", None)
    if not path or not path.endswith(".py"):
        return frozenset()
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return frozenset(alias.asname or alias.name for node in imports for alias in node.names)


def _move_attribute(owner: type, attribute: str, new: Any, module: types.ModuleType) -> None:
    old = vars(owner).get(attribute)
    if isinstance(old, property) and isinstance(new, property):
        for part in ("fget", "fset", "fdel"):
            if getattr(old, part) and getattr(new, part):
                _move_function(getattr(old, part), getattr(new, part))
    elif isinstance(old, type) and isinstance(new, type):
        for inner, value in list(vars(new).items()):
            _move_attribute(old, inner, value, module)
    elif isinstance(old, enum.Enum) and isinstance(old, owner):
        old._value_ = new._value_  # a member cannot be replaced
    elif attribute == "__dataclass_fields__" and isinstance(old, dict):
        old.update(new)  # their metadata is read from here
    elif (function := _function_in(old)) is not None:
        _move_function(function, _function_in(new))
    elif not attribute.startswith("__") and _is_value(new) and not _is_same(old, new):
        setattr(owner, attribute, _adopt(new, module))


def _adopt(value: Any, module: types.ModuleType) -> Any:
    """Make what the faulty module has made of its own classes, also in collections, one of the right module's.

    Otherwise it would equal nothing that the right module has made, and every fault near it would be noticed.
    """
    kind = type(value)
    if kind in (tuple, list, set, frozenset):
        return kind(_adopt(item, module) for item in value)
    if kind is dict:
        return {_adopt(key, module): _adopt(item, module) for key, item in value.items()}
    if not dataclasses.is_dataclass(kind) and kind.__module__ != module.__name__:
        return value
    known = vars(module).get(kind.__name__)
    if kind.__module__ == module.__name__ and isinstance(known, type) and known is not kind:
        if isinstance(value, enum.Enum):
            return getattr(known, value.name, value)
        with contextlib.suppress(TypeError):  # the fault has given it other slots
            object.__setattr__(value, "__class__", known)
    if dataclasses.is_dataclass(kind):
        for item in dataclasses.fields(kind):
            if hasattr(value, item.name):
                object.__setattr__(value, item.name, _adopt(getattr(value, item.name), module))
    return value


def _function_in(value: Any) -> types.FunctionType | None:
    """Give the function that is behind a method, a decorator, a cache or a command of click."""
    for _ in range(10):
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif hasattr(value, "__wrapped__"):
            value = value.__wrapped__
        elif isinstance(value, functools.cached_property | functools.partial):
            value = value.func
        elif not isinstance(value, type) and callable(getattr(value, "callback", None)):
            value = value.callback
        else:
            break
    return value if isinstance(value, types.FunctionType) else None


def _move_function(old: types.FunctionType, new: types.FunctionType | None) -> None:
    if new is None:
        raise ValueError(f"{old.__qualname__} is no function any more")
    old.__code__ = new.__code__
    old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__


def _is_value(value: Any) -> bool:
    """Whether an object is what it equals, as a number, a pattern or a member of an enum is: another can replace it."""
    if value is None or isinstance(value, enum.Enum):
        return True
    return any("__eq__" in vars(kind) for kind in type(value).__mro__[:-1])


def _is_same(old: Any, new: Any) -> bool:
    return type(old) is type(new) and bool(repr(old) == repr(new))


def _find_lines_at_import(path: Path, root: Path) -> set[int]:
    """Give the first lines of the statements that an import executes, also those of functions that it calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryFile("w+") as file:  # no pipe: gevent closes the other end of one later
        pid = os.fork()
        if not pid:  # to execute a module again may change more than the module
            found: set[int] = set()
            try:
                sys.settrace(functools.partial(_trace, str(path), found))
                _execute(tree, path, root)
                sys.settrace(None)
                json.dump(sorted(found), file)
                file.flush()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        file.seek(0)
        said = file.read()
    return {*_list_top_lines(tree.body), *json.loads(said or "[]")}


def _trace(path: str, found: set[int], frame: types.FrameType, event: str, argument: object) -> Any:
    if frame.f_code.co_filename != path:
        return None
    found.add(frame.f_lineno)
    return functools.partial(_trace, path, found)


def _list_top_lines(body: Sequence[ast.stmt]) -> Iterator[int]:
    """Give the first lines of all statements but those in functions: the tracer may begin at another line of them."""
    for statement in body:
        yield statement.lineno
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for block in ("body", "orelse", "finalbody"):
                yield from _list_top_lines(getattr(statement, block, []))


def make_arguments(tests: Sequence[str]) -> list[str]:
    """Return pytest's arguments. Tests that need containers are left out: faults are planted in this process alone."""
    plugins = ["no:xdist", "no:cacheprovider"]
    options = [option for plugin in plugins for option in ("-p", plugin)]
    # Without xdist its mark `xdist_group` is unknown.
    options += ["-W", "ignore::pytest.PytestUnknownMarkWarning", "-m", "not docker"]
    return ["-q", "-x", *options, "-o", "addopts=--import-mode=importlib", *tests]


def main() -> int:
    data = json.load(sys.stdin)
    job = Job(
        Path(data["root"]),
        tuple(data["modules"]),
        tuple(data["tests"]),
        data["seconds"],
        data["seed"],
        frozenset(data["skipped"]),
        data["first"],
        data["further"],
    )
    # Whatever outlives its parent becomes a child of this process, see `_end_orphans`.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # What tests print goes elsewhere: stdout is the parent's. Its number is none that a fault makes of 1 or 2.
    report = os.fdopen(fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _LEAST_DESCRIPTOR), "w")
    os.dup2(2, 1)
    os.chdir(job.root)
    sys.path.insert(0, str(job.root))
    code = int(pytest.main(make_arguments(job.tests), plugins=[Session(job, report)]))
    _end_orphans()
    return code


if __name__ == "__main__":
    sys.exit(main())
