"""Options of all test runs. They are here because pytest reads this file before it collects."""

import gc
import importlib
import os
import signal
from collections.abc import Iterator

import pytest

# Where pytest's cache keeps the ids of the tests that have failed.
_FAILED = "cache/lastfailed"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(
        "socketlab", "which servers the conformance suite runs against (default: its own processes)"
    )
    group.addoption(
        "--network", action="store_true", help="the models' containers, by service name, from inside the network"
    )
    group.addoption("--rfc", action="store_true", help="hold --target to RFCs only, not to what this lab has added")
    group.addoption("--models", default="", metavar="A,B", help="only these models")
    group.addoption(
        "--target",
        action="append",
        default=[],
        metavar="SERVICE=URL",
        help="one server that is not ours; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take signals back that a shell makes its background jobs ignore (SIGINT, SIGQUIT), and `nohup` (SIGHUP).

    The processes that a test starts would inherit that, and tests send these signals to them.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_keyboard_interrupt() -> None:
    """Let a worker take down what it has started: pytest-xdist sends it SIGINT once more if that takes 5 s."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without the garbage collector, which would look through 14,000 tests again and again, then and later."""
    gc.disable()
    try:
        return (yield)
    finally:
        # It asks for referrers at its import, which frozen ones are not; its plugin imports it at the end of each run.
        if session.config.pluginmanager.hasplugin("hypothesispytest"):
            importlib.import_module("hypothesis")
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of the engine first, since each of their groups takes long in one worker, and those of the models
    last: they are many and short, so that all workers end at about the same time (see `--no-loadscope-reorder`).
    """
    items.sort(
        key=lambda item: (item.get_closest_marker("docker") is None, item.nodeid.startswith("tests/services/models/"))
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """The tests of a group share something that only one may use at a time. pytest-xdist knows a group by its name at
    the end of a test's id, which has failed in silence before.
    """
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and strip_group(item.nodeid) == item.nodeid:
                raise pytest.UsageError(f"{item.nodeid}: this pytest and this pytest-xdist lose the groups of tests")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Name tests that failed in a group as a run without groups does. `--last-failed` would know none of them: it would
    leave them out if others failed too, and else run all tests.
    """
    # There is none with `-p no:cacheprovider`, and workers leave it to their controller.
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        failed = cache.get(_FAILED, {})
        cache.set(_FAILED, {strip_group(nodeid): value for nodeid, value in failed.items()})


def strip_group(nodeid: str) -> str:
    """The id of a test without the group that pytest-xdist has added. A parameter may have an @ as well."""
    name, bracket, rest = nodeid.rpartition("]")
    return name + bracket + rest.partition("@")[0]


@pytest.fixture(scope="session")
def unit() -> float:
    """The unit of every wait in seconds; LAB_TIME_UNIT makes it longer for a slow machine."""
    return float(os.environ.get("LAB_TIME_UNIT", "0.1"))
