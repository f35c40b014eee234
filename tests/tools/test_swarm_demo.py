"""`make swarm-demo`: what it puts back, with a docker command that only notes what it is asked; and the stack itself.

A real swarm would change the engine that all other tests use. The real thing is `make swarm-demo`, which CI runs.
"""

import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from typing import Any

import pytest
import yaml
from rich.console import Console

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from loadtests.contract import LoadResult
from loadtests.sockets.histogram import Histogram
from loadtests.targets import Targets
from services.protocol import Transport
from tests.support.docker_client import put_docker
from tools import swarm_demo


@pytest.fixture
def ask(monkeypatch):
    """Run the demo with a docker command that gives these answers; returns what it was asked, and the result."""
    asked = []
    answers: dict[str, Any] = {}

    def docker(*words, check=True, environ=None):
        line = " ".join(words)
        asked.append(line)
        code, text = next((answers[start] for start in answers if line.startswith(start)), (0, ""))
        if check and code:
            raise LabError(text)
        return subprocess.CompletedProcess(words, code, stdout=text, stderr="")

    monkeypatch.setattr(swarm_demo, "docker", docker)
    monkeypatch.setattr(Containers, "build", lambda *_: None)
    monkeypatch.setattr(swarm_demo, "_CLEAN_SECONDS", 0)

    def run(changes):
        known = {
            "info --format {{json .Swarm}}": [0, json.dumps({"LocalNodeState": "inactive"})],
            "info --format {{.Swarm.NodeID}}": [0, "node1"],
            "node inspect": [0, "{}"],
            "network inspect docker_gwbridge": [1, "no such network"],
        }
        answers.update(changes | {key: value for key, value in known.items() if key not in changes})
        result: LoadResult | LabError
        try:
            result = swarm_demo.demonstrate(Console(quiet=True))
        except LabError as error:
            result = error
        return asked, result

    return run


def _task(state, error=""):
    return json.dumps({"Name": "socketlab-demo_master.1", "CurrentState": state, "Error": error})


RESULT = LoadResult("m", "tcp", 16.0, 1, 2.0, 200, {}, Histogram.from_pairs([(100.0, 200)]), generators=2)
DONE = {
    "service ps socketlab-demo_master": [0, _task("Complete 1 second ago")],
    "service logs --raw socketlab-demo_master": [0, f"noise\n{RESULT.encode()}"],
}
MANAGER = json.dumps({"LocalNodeState": "active", "ControlAvailable": True, "NodeID": "node7"})


def test_a_swarm_that_was_made_is_left_and_its_network_removed(ask):
    asked, result = ask(DONE)
    assert result == RESULT
    order = [
        "swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377",
        "node update --label-add=lab.server=yes --label-add=lab.generator=yes node1",
        f"stack deploy --resolve-image=never --compose-file={ROOT / 'deploy' / 'stack.yaml'} socketlab-demo",
        "stack rm socketlab-demo",
        "node update --label-rm=lab.server node1",
        "node update --label-rm=lab.generator node1",
        "swarm leave --force",
        "network rm docker_gwbridge",
    ]
    assert [line for line in asked if line in order] == order
    assert not any(line.startswith("image rm") for line in asked)  # they were there before


def test_a_swarm_that_was_there_stays_with_its_labels(ask):
    asked, _ = ask(
        DONE
        | {
            "info --format {{json .Swarm}}": [0, MANAGER],
            "node inspect": [0, json.dumps({"lab.server": "mine", "zone": "a"})],
        }
    )
    assert "node update --label-add=lab.server=mine node7" in asked
    assert "node update --label-rm=lab.generator node7" in asked
    assert not any(line.startswith(("swarm ", "network rm")) for line in asked)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ({"stack deploy": [1, "no space left"]}, "no space left"),
        ({"service ps socketlab-demo_worker": [0, _task("Rejected", "No such image")]}, "No such image"),
        (
            {"service logs --raw socketlab-demo_master": [0, "Traceback"]},
            "gave no result; its log ends with:\n  Traceback",
        ),
        ({"node update --label-add": [1, "not ready"]}, "not ready"),
    ],
    ids=["deploy", "task", "result", "labels"],
)
def test_everything_is_put_back_after_a_failure_too(ask, failure, said):
    asked, error = ask(failure | DONE if "service logs" not in next(iter(failure)) else DONE | failure)
    assert said in str(error)
    assert "swarm leave --force" in asked
    assert "network rm docker_gwbridge" in asked
    assert asked.index("swarm leave --force") > max(n for n, line in enumerate(asked) if line.startswith("node update"))


def test_images_that_were_not_there_go_again(ask):
    asked, _ = ask(DONE | {"image inspect socketlab/instrument": [1, "no such image"]})
    assert "image rm --force socketlab/instrument" in asked


def test_no_swarm_is_made_beside_containers_that_find_each_other_by_name(ask):
    neighbours = "\n".join(
        json.dumps({"Names": name, "Networks": networks}) for name, networks in (("a", "bridge"), ("b", "x_lab,x_ui"))
    )
    asked, error = ask({"ps --format": [0, neighbours]})
    assert "containers run here on networks of their own (b)" in str(error)
    assert "docker swarm init" in str(error)
    assert not any(line.startswith("swarm") for line in asked)


def test_a_mere_worker_of_a_swarm_is_told_to_go_to_the_manager(ask):
    asked, error = ask({"info --format {{json .Swarm}}": [0, MANAGER.replace("true", "false")]})
    assert "managers" in str(error)
    assert not any(line.startswith(("node", "stack", "swarm")) for line in asked)


def test_a_stack_of_that_name_is_not_touched(ask):
    asked, error = ask({"stack ps socketlab-demo": [0, "task1"]})
    assert "docker stack rm socketlab-demo" in str(error)
    assert "stack rm socketlab-demo" not in asked


STACK = yaml.safe_load((ROOT / "deploy" / "stack.yaml").read_text())


@pytest.mark.parametrize("service", STACK["services"])
def test_the_stack_is_as_hardened_as_swarm_can(service):
    found = STACK["services"][service]
    assert found["cap_drop"] == ["ALL"]
    assert found["read_only"]
    assert found["init"]
    assert found["user"] == "1000:1000"
    assert found["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}
    assert found["deploy"]["endpoint_mode"] == "dnsrr"
    assert "ports" not in found
    assert STACK["networks"][found["networks"][0]]["internal"]


def test_the_labels_that_the_demo_and_the_page_set_are_those_that_the_stack_asks_for():
    """A service whose label no machine has waits without end."""
    constraints = [line for each in STACK["services"].values() for line in each["deploy"]["placement"]["constraints"]]
    assert "node.role == manager" in constraints
    asked = {line.removeprefix("node.labels.") for line in constraints if line.startswith("node.labels.")}
    assert asked == {f"{name} == yes" for name in swarm_demo._LABELS}
    page = (ROOT / "docs" / "scaling-out.md").read_text()
    assert {f"{name} == yes" for name in re.findall(r"\b(lab\.[a-z.]+)=yes\b", page)} == asked


def test_the_stack_tells_its_generators_of_the_server():
    text = STACK["services"]["worker"]["environment"]["LAB_TARGETS"]
    text = re.sub(r"\$\{LAB_MODEL:-(\w+)\}", r"\1", text)
    targets = Targets.from_json(text)
    assert targets.models == ["asyncio_streams"]
    address = targets.find("asyncio_streams", "command", Transport.TCP)
    assert (address.host, address.port) == ("server", 6379)
    assert targets.find("asyncio_streams", "echo", Transport.UDP).port == 7
    # The model listens at the ports of its services, over TCP and UDP alone: certificates and sockets are a machine's.
    (row,) = json.loads(text)
    listeners = {(item["service"], item["transport"], item["address"]) for item in row["listeners"]}
    assert listeners == {
        (item.service, item.transport, item.address.replace("//asyncio_streams:", "//server:"))
        for item in Catalogue.load()["asyncio_streams"].addresses
        if item.transport in ("tcp", "udp") and item.service != "http"
    }


def test_the_stack_has_as_many_workers_as_its_master_waits_for():
    services = STACK["services"]
    worker, master = services["worker"], services["master"]
    assert worker["deploy"]["replicas"] == "${LAB_WORKERS:-2}"
    assert master["entrypoint"][-2:] == ["--expect-workers", worker["deploy"]["replicas"]]
    assert worker["entrypoint"][-3:] == ["--worker", "--master-host", "master"]
    # Both write temporary files, and their root is read-only.
    assert worker["volumes"] == master["volumes"] == [{"type": "tmpfs", "target": "/tmp"}]  # noqa: S108
    assert services["server"]["image"] == "socketlab/${LAB_MODEL:-asyncio_streams}"


def test_the_published_ui_has_a_login():
    ui = yaml.safe_load((ROOT / "deploy" / "ui.yaml").read_text())["services"]["master"]
    assert ui["environment"]["LAB_UI_LOGIN"].startswith("${LAB_UI_LOGIN:?")
    assert "--web-login" in ui["command"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"failures": {"connection reset": 1}}, 0),
        ({"failures": {"connection reset": 3}}, 1),
        ({"failures": {"wrong bytes": 1}}, 1),
        ({"answered": 0}, 1),
        ({"disturbances": ("1 of 2 load generators did not take part in the whole window",)}, 2),
    ],
)
def test_exit_code_is_that_of_the_verdict(monkeypatch, changes, code):
    monkeypatch.setattr(swarm_demo, "demonstrate", lambda console: replace(RESULT, **changes))
    assert swarm_demo.main() == code


def test_line_of_the_result_has_each_figure_in_its_place(monkeypatch, capsys):
    times = Histogram.from_pairs([(100.0, 150), (900.0, 50)])
    result = replace(RESULT, service=times, failures={"connection reset": 1})
    monkeypatch.setattr(swarm_demo, "demonstrate", lambda console: result)
    swarm_demo.main()
    assert capsys.readouterr().out == (
        "m: 100 requests/s from 2 workers, p50 100 µs, p99 900 µs, 1 failures, over an overlay network\n"
    )


@pytest.mark.parametrize(("error", "code"), [(LabError("no engine"), 2), (KeyboardInterrupt(), 130)])
def test_exit_code_of_a_demo_without_a_result(monkeypatch, capsys, error, code):
    def demonstrate(console):
        raise error

    monkeypatch.setattr(swarm_demo, "demonstrate", demonstrate)
    assert swarm_demo.main() == code
    said = "no engine" if code == 2 else "interrupted; everything is as it was"
    assert capsys.readouterr().err == f"swarm-demo: {said}\n"


@pytest.mark.parametrize("state", ["pending", "error", "locked"])
def test_swarm_in_another_state_is_left_alone(ask, state):
    asked, error = ask(DONE | {"info --format {{json .Swarm}}": [0, json.dumps({"LocalNodeState": state})]})
    assert f"in the state {state}" in str(error)
    assert not any(line.startswith("swarm ") for line in asked)


def test_stack_is_gone_before_its_swarm_is_left(ask):
    asked, _ = ask(DONE)
    removed = asked.index("stack rm socketlab-demo")
    left = asked[removed + 1 : asked.index("swarm leave --force")]
    label = "--quiet --filter label=com.docker.stack.namespace=socketlab-demo"
    assert [line for line in left if label in line] == [
        f"{words} {label}" for words in ("ps --all", "network ls", "service ls")
    ]


@pytest.mark.parametrize("kind", ["ps --all", "network ls", "service ls"])
def test_stack_that_does_not_go_away_is_named_and_the_rest_put_back(ask, kind):
    asked, error = ask(DONE | {f"{kind} --quiet": [0, "0123abcd"]})
    assert str(error).startswith("the stack socketlab-demo does not go away")
    assert "swarm leave --force" in asked


def test_load_that_is_not_over_in_time_ends_the_demo(ask, monkeypatch):
    monkeypatch.setattr(swarm_demo, "_RUN_SECONDS", 0.0)
    monkeypatch.setattr(swarm_demo, "_PAUSE", "it goes on")
    asked, error = ask(DONE | {"service ps socketlab-demo_master": [0, _task("Running 1 second ago")]})
    assert str(error).startswith("the load was not over within 0 s")
    assert "swarm leave --force" in asked


def test_second_interrupt_does_not_end_what_is_put_back_and_the_handlers_come_back():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    seen = []

    def interrupt(number):
        with swarm_demo._uninterrupted_end():
            try:
                os.kill(os.getpid(), number)
            finally:
                seen.append([signal.getsignal(each) for each in numbers])

    for number in numbers:
        with pytest.raises(KeyboardInterrupt):
            interrupt(number)
        assert seen.pop() == [signal.SIG_IGN, signal.SIG_IGN]
        assert [signal.getsignal(each) for each in numbers] == before


def test_failure_of_docker_is_its_last_line(monkeypatch, tmp_path):
    put_docker(monkeypatch, tmp_path, {"node update": 1}, before="echo first >&2")
    with pytest.raises(LabError, match=r"^docker node update: Error response from daemon: it failed$"):
        swarm_demo.docker("node", "update", "x")
    assert swarm_demo.docker("node", "update", "x", check=False).returncode == 1


def test_docker_gets_the_variables_of_the_stack(monkeypatch, tmp_path):
    put_docker(monkeypatch, tmp_path, {}, before='echo "$LAB_MODEL in $PATH"')
    done = swarm_demo.docker("stack", "deploy", environ={"LAB_MODEL": "prefork"})
    assert done.stdout == f"prefork in {tmp_path}\n"
