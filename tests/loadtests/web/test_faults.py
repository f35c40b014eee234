"""Faults from the form of Locust's web UI: requested at their time, and not after the run has stopped."""

from argparse import ArgumentParser
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import gevent
import pytest

from lab.base.environ import ENV_FAULTS
from lab.base.messages import decode
from lab.load.messages import FaultRequest
from loadtests.web import faults

if TYPE_CHECKING:  # importing Locust would patch this process
    from locust.env import Environment


class Hook(list[Callable[..., object]]):
    """A stand-in for Locust's event: importing Locust would patch this process."""

    add_listener, remove_listener = list.append, list.remove

    def fire(self, **arguments):
        for listener in [*self]:
            listener(**arguments)


def parse(*words):
    parser = ArgumentParser()
    faults.add_options(parser)
    return parser.parse_args(words)


def test_form_has_fields_for_faults_only_if_a_lab_offers_them(monkeypatch):
    monkeypatch.delenv(ENV_FAULTS, raising=False)
    assert vars(parse()) == {}
    assert faults.find_objection(parse()) is None
    monkeypatch.setenv(ENV_FAULTS, "pause,kill")
    assert vars(parse()) == {"fault": "none", "fault_after": 10.0, "fault_for": 5.0}
    assert parse("--fault", "kill").fault == "kill"
    with pytest.raises(SystemExit):
        parse("--fault", "format")


@pytest.mark.parametrize(
    ("words", "is_fine"),
    [
        ((), True),
        (("--fault-for", "-1"), True),  # of no fault
        (("--fault", "pause", "--fault-after", "0"), True),
        (("--fault", "pause", "--fault-after", "-0.1"), False),
        (("--fault", "pause", "--fault-after", "nan"), False),
        (("--fault", "pause", "--fault-for", "0"), False),
        (("--fault", "pause", "--fault-for", "0.5"), True),
        (("--fault", "pause", "--fault-for", "600"), True),
        (("--fault", "pause", "--fault-for", "601"), False),
    ],
)
def test_invalid_times_of_a_fault_are_refused(monkeypatch, words, is_fine):
    monkeypatch.setenv(ENV_FAULTS, "pause,kill")
    assert (faults.find_objection(parse(*words)) is None) == is_fine


@pytest.mark.parametrize(
    ("fault", "stops", "asks"), [("pause", False, True), ("pause", True, False), ("none", False, False)]
)
def test_fault_is_requested_at_its_time_unless_the_run_has_stopped(capsys, fault, stops, asks):
    options = SimpleNamespace(fault=fault, models=["prefork", "plain_socket"], fault_after=0.01, fault_for=2.0)
    environment = SimpleNamespace(parsed_options=options, events=SimpleNamespace(test_stop=Hook()))
    faults.schedule(cast("Environment", environment))
    if stops:
        environment.events.test_stop.fire(environment=environment)
    gevent.wait(timeout=60)  # until nothing is left that was to come
    requests = [decode(line, FaultRequest) for line in capsys.readouterr().out.splitlines()]
    assert requests == [FaultRequest("pause", ("prefork", "plain_socket"), 2.0)] * asks
    # Of one run, and not of the next.
    environment.events.test_stop.fire(environment=environment)
    assert environment.events.test_stop == []
