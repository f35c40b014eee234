"""What is asked of the engine for a container, and which errors of its API a user sees."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import docker
import docker.errors
import pytest
import requests

from lab.base.errors import EngineAwayError, LabError
from lab.servers.backend import Backend, Completed
from lab.servers.catalogue import Catalogue
from lab.servers.docker import model_container
from lab.servers.docker.compose import Compose
from lab.servers.docker.containers import Containers
from lab.servers.docker.model_container import read_images

MODEL = "prefork"


class FakeContainer:
    """A container that notes what is asked of it; a name that it does not have is a method of the API."""

    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked
        self.id = "abc"
        self.answers: dict[str, Any] = {}
        self.attrs: dict[str, Any] = {
            "Image": "sha256:cc",
            "State": {"Paused": True, "ExitCode": 3},
            "NetworkSettings": {"Networks": {}},
            "HostConfig": {"Memory": 7, "MemorySwap": 9},
        }

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.asked.append((name, *arguments, *options.items()))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


class FakeEngine:
    """An engine with one container."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.container = FakeContainer(self.asked)
        self.closed = 0
        self.containers = SimpleNamespace(get=self._get)
        network = SimpleNamespace(
            connect=lambda container, aliases: self.asked.append(("connect", container.id, aliases)),
            disconnect=lambda container: self.asked.append(("disconnect", container.id)),
        )
        self.networks = SimpleNamespace(get={"lab_lab": network}.__getitem__)

    def _get(self, name: str) -> FakeContainer:
        if name not in ("lab-prefork-1", "lab-shell-1"):
            raise docker.errors.NotFound(f"No such container: {name}")
        return self.container

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    engine = FakeEngine()
    opened: list[int] = []

    def open_engine() -> FakeEngine:
        opened.append(1)
        return engine

    monkeypatch.setattr(docker, "from_env", open_engine)
    yield engine
    assert engine.closed == len(opened)


@pytest.fixture
def backend() -> Backend:
    return Containers("lab", Catalogue.load())


def test_each_control_is_one_call_of_the_engine(engine: FakeEngine, backend: Backend) -> None:
    container = backend.faults.container
    assert container is not None
    backend.faults.kill(MODEL, 9)
    backend.faults.pause(MODEL)
    backend.faults.unpause(MODEL)
    backend.faults.limit_cpu(MODEL, 0.05)
    backend.faults.limit_cpu(MODEL, None)
    container.limit_memory(MODEL, 5, 6)
    container.disconnect(MODEL)
    container.connect(MODEL)
    backend.pin(MODEL, (1, 3))
    assert backend.stop(MODEL) == 3
    assert engine.asked == [
        ("kill", ("signal", 9)),
        ("pause",),
        ("unpause",),
        ("update", ("cpu_period", 100_000), ("cpu_quota", 5000)),
        ("update", ("cpu_period", 100_000), ("cpu_quota", -1)),
        ("update", ("mem_limit", 5), ("memswap_limit", 6)),
        ("disconnect", "abc"),
        ("connect", "abc", [MODEL]),
        ("update", ("cpuset_cpus", "1,3")),
        ("stop", ("timeout", 10)),
        ("reload",),
    ]
    assert container.memory_limit(MODEL) == (7, 9)


def test_model_has_its_grace_period_before_it_starts_again(engine: FakeEngine) -> None:
    model_container.ModelContainers(Compose("lab", Catalogue.load())).restart(MODEL)
    assert engine.asked == [("restart", ("timeout", 10))]


def test_running_or_connected_container_is_left_alone(engine: FakeEngine, backend: Backend) -> None:
    assert backend.faults.container is not None
    engine.container.attrs |= {"State": {"Paused": False}, "NetworkSettings": {"Networks": {"lab_lab": {}}}}
    backend.faults.unpause(MODEL)
    backend.faults.container.connect(MODEL)
    assert engine.asked == []


Docker = list[tuple[str, ...]]


@pytest.fixture
def docker_client(monkeypatch: pytest.MonkeyPatch) -> tuple[Docker, list[Completed]]:
    """The calls of the Docker client, and what it answers."""
    asked: Docker = []
    answers: list[Completed] = []

    def run(*arguments: str, check: bool) -> Completed:
        assert not check
        asked.append(arguments)
        return answers.pop(0)

    monkeypatch.setattr(model_container, "run_docker", run)
    return asked, answers


def test_script_beside_a_model_returns_its_output_or_its_last_words(
    backend: Backend, docker_client: tuple[Docker, list[Completed]]
) -> None:
    asked, answers = docker_client
    answers += [Completed([], 0, "out\n", "warning\n"), Completed([], 1, "out\n", "Traceback\nOSError: no\n")]
    answers += [Completed([], 1, "only out\n", "")]
    assert backend.faults.run_beside(MODEL, "code", ["a"]) == "out\n"
    assert asked == [("exec", "lab-prefork-1", "python3", "-c", "code", "1", "a")]
    for said in ("OSError: no", "only out"):
        with pytest.raises(LabError, match=f"^prefork: {said}$"):
            backend.faults.run_beside(MODEL, "code")


def test_command_in_a_network_has_one_right_and_a_label(
    engine: FakeEngine, backend: Backend, docker_client: tuple[Docker, list[Completed]]
) -> None:
    asked, answers = docker_client
    container = backend.faults.container
    assert container is not None
    answers += [Completed([], 0, "one\n", "warning\n"), Completed([], 1, "out\n", "Error:\n  no qdisc\n")]
    answers += [Completed([], 1, "only\nout\n", "")]
    assert container.run_in_network(MODEL, ["nft", "list"]) == "one\n"
    (words,) = asked
    assert words[:2] == ("run", "--rm")
    assert words[-4:] == ("--network=container:lab-prefork-1", "sha256:cc", "nft", "list")
    assert {"--cap-drop=ALL", "--cap-add=NET_ADMIN", "--read-only", "--security-opt=no-new-privileges"} < set(words)
    # `down` finds it by these.
    assert {"--label=com.docker.compose.project=lab", "--label=lab.part=instrument"} < set(words)
    for said in ("Error: no qdisc", "only out"):
        with pytest.raises(LabError, match=f"^prefork: {said}$"):
            container.run_in_network(MODEL, ["tc"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (docker.errors.NotFound("no such container: x"), "prefork is not running: `lab up prefork`"),
        (docker.errors.APIError("Container abc is not running"), "prefork is not running: `lab up prefork`"),
        (docker.errors.APIError("x", explanation="cannot pause: no freezer"), "prefork: cannot pause: no freezer"),
    ],
)
def test_error_of_the_engine_names_the_model(engine: FakeEngine, backend: Backend, error: Exception, said: str) -> None:
    engine.container.answers["pause"] = error
    with pytest.raises(LabError, match=f"^{said}$"):
        backend.faults.pause(MODEL)


@pytest.mark.parametrize("at", ["open", "call"])
def test_engine_that_does_not_answer_is_away(
    engine: FakeEngine, backend: Backend, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    engine.container.answers["pause"] = requests.ConnectionError("refused")
    if at == "open":

        def fail() -> None:
            raise docker.errors.DockerException("Error while fetching server API version: refused")

        monkeypatch.setattr(docker, "from_env", fail)
        engine.closed = 0
    with pytest.raises(EngineAwayError):
        backend.faults.pause(MODEL)


def test_model_without_a_container_cannot_be_pinned(engine: FakeEngine, backend: Backend) -> None:
    said = "thread_pool cannot be pinned to cores 1,3: thread_pool is not running: `lab up thread_pool`"
    with pytest.raises(LabError, match=f"^{said}$"):
        backend.pin("thread_pool", (1, 3))


def test_images_are_named_by_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    images = {"a:1": "sha256:aa", "b:1": "sha256:bb"}

    def get(image: str) -> Any:
        if image not in images:
            raise docker.errors.ImageNotFound(image)
        return SimpleNamespace(short_id=images[image])

    client = SimpleNamespace(images=SimpleNamespace(get=get), close=lambda: closed.append(True))
    monkeypatch.setattr(docker, "from_env", lambda: client)
    assert read_images({"a": "a:1", "b": "b:1"}) == "a sha256:aa, b sha256:bb"
    assert read_images({"a": "a:1", "c": "c:1"}) is None
    assert closed == [True, True]
