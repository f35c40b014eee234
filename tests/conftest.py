"""Options that every way of running the tests shares. They stand here because pytest reads them before it collects."""

import os
import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(
        "socketlab", "which servers the conformance suite runs against (default: its own processes)"
    )
    group.addoption(
        "--network", action="store_true", help="the models' containers, by service name, from inside the network"
    )
    group.addoption("--rfc", action="store_true", help="hold --target to RFCs only, not to what this lab has added")
    group.addoption("--models", default="", metavar="A,B", help="only these models")
    group.addoption("--targets", metavar="FILE", help="servers that run already: a file in the form of `lab ls --json`")
    group.addoption(
        "--target",
        action="append",
        default=[],
        metavar="SERVICE=URL",
        help="one server that is not ours; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """What Ctrl-C does is tested too, and a shell starts its background jobs, CI among them, with SIGINT ignored.

    The processes that a test starts would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def unit() -> float:
    """The unit of every wait, in seconds; LAB_TIME_UNIT makes it longer where a machine is slow."""
    return float(os.environ.get("LAB_TIME_UNIT", "0.1"))
