"""The exchanges of the engine, in a separate process: Locust patches the one that imports it."""

from tests.support.scripts import run_checks


def test_each_step_of_an_exchange() -> None:
    run_checks("tests/loadtests/sockets/engine/exchange_checks.py")
