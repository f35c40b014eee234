"""What is read from containers, and what they are given, without an engine."""

import json
from typing import Any

import pytest

from lab.servers.backend import Completed
from lab.servers.catalogue import Catalogue
from lab.servers.docker import containers
from lab.servers.docker.compose import Compose
from lab.servers.docker.containers import Containers
from lab.servers.docker.describe import read_versions


def test_versions_are_those_of_the_first_lines() -> None:
    logs = [
        'a warning\n{"model": "uvloop_protocol", "python": "3.11.7", "libraries": {"uvloop": "0.22.1"}}\n',
        '{"model": "threads_nogil", "python": "3.14.1", "libraries": {}, "gil": false}',
        '{"model": "plain_socket", "python": "3.11.7", "libraries": {}, "gil": true}',
        '{"model": cut off',
        '{"model": "without the rest"}',
    ]
    assert read_versions(logs) == "Python 3.11.7, uvloop 0.22.1, Python without the GIL 3.14.1"
    assert read_versions(logs[3:]) is None


def test_limits_of_the_environment_are_those_of_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.servers.docker.compose.read_limits", lambda: {"LAB_MAX_LINE": "9$"})
    chosen = Compose("p", Catalogue.load())._choose_limits(["prefork", "threads_nogil", "peer_redis", "gallery_ftp"])
    limits = {"environment": {"LAB_MAX_LINE": "9$$"}}
    assert chosen == {"prefork": limits, "threads_nogil": limits, "peer_redis": {}, "gallery_ftp": {}}


def inspected(service: str, **state: object) -> dict[str, Any]:
    return {
        "Config": {"Labels": {"com.docker.compose.service": service, "com.docker.compose.oneoff": "False"}},
        "State": {"Running": False, "ExitCode": 0, "OOMKilled": False, "Error": "", **state},
    }


def test_container_that_has_ended_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: str, check: bool) -> Completed:
        return Completed(words, 0, '{"model": "x"}\n', "one\ntwo\n")

    monkeypatch.setattr(containers, "run_docker", run)
    backend = Containers("p", Catalogue.load())
    for state, code, lines in (
        ({"ExitCode": 3}, 3, ("one", "two")),
        (
            {"ExitCode": 137, "OOMKilled": True},
            137,
            ("one", "two", "the kernel ended it at its memory limit (mem_limit in compose.yaml)"),
        ),
        ({"ExitCode": 127, "Error": "no such file"}, 127, ("one", "two", "no such file")),
    ):
        found = backend._state_of("prefork", "processes", (), inspected("prefork", **state))
        assert (found.state, found.exit_code, found.last_lines) == ("exited", code, lines)
    found = backend._state_of("prefork", "processes", (), inspected("prefork", Running=True))
    assert (found.state, found.exit_code, found.last_lines) == ("running", None, ())
    assert backend._state_of("prefork", "processes", (), None).state == "missing"


def test_container_of_a_single_command_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    command = inspected("prefork", ExitCode=9)
    command["Config"]["Labels"]["com.docker.compose.oneoff"] = "True"
    found = [inspected("prefork", ExitCode=3), command, inspected("plain_socket")]
    monkeypatch.setattr(containers, "list_ids", lambda *_: ["a", "b", "c"])
    monkeypatch.setattr(containers, "run_docker", lambda *words, **_: Completed(words, 0, json.dumps(found), ""))
    by_service = Containers("p", Catalogue.load())._inspect("lab.model")
    assert {name: item["State"]["ExitCode"] for name, item in by_service.items()} == {"prefork": 3, "plain_socket": 0}
