"""What the lab asks Docker's client for, and what it makes of the answers, without an engine."""

import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.base import interrupts
from lab.base.errors import EngineAwayError, LabError, NotReadyError
from lab.engine import EngineError
from lab.servers.backend import Completed
from lab.servers.catalogue import Catalogue
from lab.servers.docker import cleanup, containers
from lab.servers.docker import compose as compose_module
from lab.servers.docker.cleanup import PROJECT_LABEL, find_projects, purge
from lab.servers.docker.command import open_process, read_lines
from lab.servers.docker.compose import Changes, Compose
from lab.servers.docker.containers import Containers
from lab.servers.docker.describe import read_engine
from lab.servers.docker.images import build_images, find_images, read_inputs, remove_images
from lab.servers.readiness import Outcome
from lab.servers.runtime import find_mark, find_stamps
from tests.support.docker_client import put_docker
from tests.support.fakes import FakeHelper, set_clock

CATALOGUE = Catalogue.load()
MODEL = "plain_socket"
IMAGE = CATALOGUE.image(MODEL)
PRUNE = "image prune --force --filter label=lab.inputs"


def list_images(digest: str | None) -> str:
    """Return what `docker image inspect` prints of an image that was built from these inputs; None: of no image."""
    return "\n" if digest is None else f'["{IMAGE}:latest"] {json.dumps({"lab.inputs": digest})}\n'


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compose:
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    monkeypatch.setattr("lab.engine.base_image.provide", lambda: None)
    return Compose("mine", CATALOGUE)


def test_image_of_these_inputs_is_not_built_again(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = read_inputs(CATALOGUE, [MODEL])[MODEL]
    asked = put_docker(monkeypatch, tmp_path, {"image inspect": list_images(now)})
    build_images(compose, [MODEL])
    assert [line.split()[:3] for line in asked()] == [["image", "inspect", IMAGE]]


@pytest.mark.parametrize("digest", [None, "of yesterday"])
def test_image_that_is_missing_or_old_is_built_and_the_one_before_is_pruned(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digest: str | None
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    given = tmp_path / "given"
    note = f'read -r line; printf "%s\\n" "$line" "$BUILDX_BUILDER" > {given}'
    before = f'if [ "$1" = compose ]; then {note}; fi'
    asked = put_docker(monkeypatch, tmp_path, {"image inspect": list_images(digest)}, before=before)
    build_images(compose, [MODEL])
    _, built, pruned = asked()
    assert built.split()[0] == "compose"
    assert built.endswith(f" --file - build {MODEL}")
    # The override gives the image the digest by which it is known, and the build the builder of this engine.
    override, builder = (tmp_path / "given").read_text().splitlines()
    digest = read_inputs(CATALOGUE, [MODEL])[MODEL]
    assert json.loads(override) == {"services": {MODEL: {"build": {"labels": {"lab.inputs": digest}}}}}
    assert builder == "default"
    # Without the filter the images of other programs would go as well.
    assert pruned == PRUNE


def test_image_that_is_not_there_is_built_after_the_one_that_it_is_made_from(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Docker's client fails if one of the images is missing, and if there is nothing to prune, as some do."""
    provided: list[int] = []
    asked = put_docker(monkeypatch, tmp_path, {"image inspect": 1, "image prune": 1})
    monkeypatch.setattr("lab.engine.base_image.provide", lambda: provided.append(len(asked())))
    build_images(compose, [MODEL])
    assert [line.split()[0] for line in asked()] == ["image", "compose", "image"]
    assert provided == [1]

    def fail() -> None:
        raise EngineError("no base image", "load it")

    monkeypatch.setattr("lab.engine.base_image.provide", fail)
    with pytest.raises(LabError, match=r"^no base image: load it$"):
        build_images(compose, [MODEL])


def test_failed_build_is_an_error_and_nothing_is_pruned(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = put_docker(monkeypatch, tmp_path, {"image inspect": "\n", "compose": 17})
    with pytest.raises(LabError, match=rf"^building {MODEL} failed; its output ends with:\n  Error response .* failed"):
        build_images(compose, [MODEL])
    assert PRUNE not in asked()
    assert capsys.readouterr() == ("", "")  # nothing was built


def test_failed_build_shows_the_last_forty_lines_of_its_output(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "said").write_text("".join(f"line {number}\n" for number in range(50)))
    before = f'[ "$1" = compose ] && /bin/cat {tmp_path}/said && exit 17'
    put_docker(monkeypatch, tmp_path, {"image inspect": "\n"}, before=before)
    with pytest.raises(LabError) as raised:
        build_images(compose, [MODEL])
    assert str(raised.value).splitlines()[1:] == [f"  line {number}" for number in range(10, 50)]


def test_images_that_cannot_be_removed_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = put_docker(monkeypatch, tmp_path, {"image rm": 1})
    with pytest.raises(LabError, match=r"^it failed$"):
        remove_images(["a", "b"])
    remove_images([])
    assert asked() == ["image rm --force a b"]


def test_build_without_an_engine_says_so(compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    away = "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"
    before = f'[ "$1" = compose ] && echo "{away}" && exit 1'
    put_docker(monkeypatch, tmp_path, {"image inspect": "\n"}, before=before)
    with pytest.raises(EngineAwayError):
        build_images(compose, [MODEL])


def test_compose_reads_the_files_of_the_catalogue_and_nothing_else(compose: Compose) -> None:
    """Not the `.env` of the folder, which the process backend does not read either."""
    files = [word for file in CATALOGUE.files for word in ("--file", str(file))]
    usual = ["docker", "compose", "--ansi", "never", "--env-file", "/dev/null", "--project-name", "mine", *files]
    assert compose.command() == usual
    assert compose.command("-", "b.yaml") == [*usual, "--file", "-", "--file", "b.yaml"]
    assert (compose.network, compose.name_model(MODEL)) == ("mine_lab", f"mine-{MODEL}-1")
    environ = compose.environ()
    assert environ["LAB_TLS_CLIENT_CA"] == ""
    assert "BUILDX_BUILDER" not in environ  # which a build has
    assert "BUILDX_BUILDER" in compose.environ(for_build=True)


@pytest.mark.parametrize(("mutual_tls", "ca"), [(False, ""), (True, "/run/secrets/tls_ca")])
def test_models_ask_for_certificates_of_clients_only_with_mutual_tls(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mutual_tls: bool, ca: str
) -> None:
    put_docker(monkeypatch, tmp_path, {}, before='echo "[$LAB_TLS_CLIENT_CA]"')
    assert list(compose.up([MODEL], mutual_tls=mutual_tls)) == [f"[{ca}]"]


def test_containers_start_from_images_that_exist_with_the_limits_of_the_environment(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("LAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAB_MAX_LINE", "9")
    asked = put_docker(monkeypatch, tmp_path, {}, before='read -r given; echo "$given"')
    (line,) = compose.up(["shell", MODEL], mutual_tls=False)
    assert json.loads(line) == {"services": {"shell": {}, MODEL: {"environment": {"LAB_MAX_LINE": "9"}}}}
    assert asked()[0].endswith(f" --file - up --detach --no-build --quiet-pull shell {MODEL}")


def test_start_takes_two_minutes_at_most(compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_docker(monkeypatch, tmp_path, {})
    clock = set_clock(monkeypatch, tmp_path, compose_module)
    deadlines: list[float] = []

    def read(process: "subprocess.Popen[bytes]", deadline: float) -> Iterator[str | None]:
        deadlines.append(deadline)
        return read_lines(process, math.inf)

    monkeypatch.setattr(compose_module, "read_lines", read)
    assert list(compose.up([MODEL], mutual_tls=False)) == []
    assert deadlines == [clock.now + 120.0]


def test_failed_start_is_an_error_with_its_reason(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_docker(monkeypatch, tmp_path, {"compose": 1})
    with pytest.raises(LabError, match=r"^it failed$"):
        list(compose.up([MODEL], mutual_tls=False))
    for said, error in (("Cannot connect to the Docker daemon at unix:///x.", EngineAwayError), ("", LabError)):
        put_docker(monkeypatch, tmp_path, {}, before=f'echo "{said}"; exit 9')
        with pytest.raises(error, match=r"^Cannot connect|^`docker compose up` failed: 9$"):
            list(compose.up([MODEL], mutual_tls=False))


class Waiting(Containers):
    """Containers that start at once; it notes what is waited for, and how long."""

    def __init__(self) -> None:
        super().__init__("mine", CATALOGUE)
        self.waited: list[tuple[list[str], float]] = []
        self.failures: list[str] = []
        self.started: list[tuple[list[str], bool]] = []
        self.restarted: list[str] = []
        # In the place of a cached property.
        self.__dict__["faults"] = SimpleNamespace(restart=self.restarted.append)

    @contextmanager
    def _started(self, services: Sequence[str], *, mutual_tls: bool = False) -> Iterator[None]:
        self.started.append((list(services), mutual_tls))
        yield

    def _wait_ready(self, models: Sequence[str], timeout: float) -> None:
        self.waited.append((list(models), timeout))

    def _wait_healthy(self, servers: Sequence[str], timeout: float) -> list[str]:
        self.waited.append((list(servers), timeout))
        return self.failures


def test_each_start_waits_for_its_models_as_long_as_it_is_told() -> None:
    backend = Waiting()
    backend.up([MODEL, "prefork"], timeout=3.5)
    backend.up([MODEL], mutual_tls=True)
    backend.restart(MODEL, timeout=4.5)
    backend.wait_ready("prefork", timeout=5.5)
    assert backend.restarted == [MODEL]
    assert backend.waited == [([MODEL, "prefork"], 3.5), ([MODEL], 30.0), ([MODEL], 4.5), (["prefork"], 5.5)]
    assert backend.started == [(["shell", MODEL, "prefork"], False), (["shell", MODEL], True)]


@pytest.mark.parametrize("failures", [["irc exited"], ["irc exited", "ftp exited"]])
def test_server_of_the_gallery_that_does_not_start_is_an_error(failures: list[str]) -> None:
    backend = Waiting()
    servers = CATALOGUE.gallery[:2]
    backend.up_gallery(servers, timeout=6.5)
    assert backend.waited == [([server.name for server in servers], 6.5)]
    # The shell is where exhibits run, and a load.
    assert backend.started == [(["shell", *(server.name for server in servers)], False)]
    backend.failures = failures
    with pytest.raises(NotReadyError) as raised:
        backend.up_gallery(servers)
    assert str(raised.value) == "\n".join(failures)


@pytest.mark.parametrize("error", ["refused", None])
def test_model_that_runs_and_is_not_ready_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str | None
) -> None:
    found = [describe(name, {"Running": True}) for name in (MODEL, "prefork")]
    put_docker(monkeypatch, tmp_path, {"container ls": "a\nb\n", "inspect": json.dumps(found), "logs": "it hangs\n"})
    backend = Containers("mine", CATALOGUE)
    commands: list[Sequence[str]] = []

    @contextmanager
    def start(name: str, arguments: Sequence[str]) -> Iterator[FakeHelper]:
        commands.append(arguments)
        probe = FakeHelper(name)
        probe.say(Outcome(MODEL, True, 0.1), Outcome("prefork", False, 2.5, error))
        yield probe

    monkeypatch.setattr(backend.helpers, "start", start)
    with pytest.raises(NotReadyError, match=r"^prefork runs, but gave no answer within 2\.5 s"):
        backend._wait_ready([MODEL, "prefork"], 2.5)
    backend._wait_ready([MODEL], 2.5)
    request = json.loads(commands[0][-1])
    assert request["timeout"] == 2.5
    assert {model for model, _, _ in request["targets"]} == {MODEL, "prefork"}


def describe(service: str, state: Mapping[str, object], *, oneoff: str = "False") -> dict[str, Any]:
    """Return what `docker inspect` prints of a container of a service."""
    labels = {"com.docker.compose.service": service, "com.docker.compose.oneoff": oneoff}
    known = {"Running": False, "ExitCode": 137, "Error": "", "OOMKilled": False}
    return {"Config": {"Labels": labels}, "State": {**known, **state}}


def test_container_of_a_single_command_is_not_that_of_its_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`docker compose run` makes one beside it."""
    found = [describe(MODEL, {"Running": True}), describe(MODEL, {}, oneoff="True")]
    put_docker(monkeypatch, tmp_path, {"container ls": "a\nb\n", "inspect": json.dumps(found)})
    states = {state.model: state.state for state in Containers("mine", CATALOGUE).state()}
    assert states[MODEL] == "running"
    assert {state for model, state in states.items() if model != MODEL} == {"missing"}


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        ({}, ("it ends",)),
        ({"OOMKilled": True}, ("it ends", "the kernel ended it at its memory limit (mem_limit in compose.yaml)")),
        ({"Error": "no such file"}, ("it ends", "no such file")),
    ],
)
def test_container_that_has_ended_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: dict[str, object], lines: tuple[str, ...]
) -> None:
    answers: dict[str, str | int] = {"container ls": "a\n", "inspect": json.dumps([describe(MODEL, state)])}
    # Only stderr is its log: what it prints is a line for the lab.
    put_docker(monkeypatch, tmp_path, answers, before='[ "$1" = logs ] && echo header && echo "it ends" >&2')
    (found,) = [each for each in Containers("mine", CATALOGUE).state() if each.model == MODEL]
    assert (found.state, found.exit_code, found.last_lines) == ("exited", 137, lines)


@pytest.mark.parametrize("label", ["lab.model=prefork", "lab.gallery=irc", "lab.part=instrument"])
def test_project_with_a_container_of_the_lab_is_a_lab(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, label: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    rows = f"web com.docker.compose.project=mine\nserver com.docker.compose.project=mine,{label}\n"
    asked = put_docker(monkeypatch, tmp_path, {"container ls --all --filter": rows})
    assert not purge("mine")  # by now all of it is gone
    assert "container ls --quiet --all --no-trunc --filter label=com.docker.compose.project=mine" in asked()


@pytest.mark.parametrize("label", ["", ",lab.models=3", ",my.lab.model=3", ",lab=1"])
def test_project_of_another_program_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, label: str
) -> None:
    rows = f"web com.docker.compose.project=mine{label}\n"
    asked = put_docker(monkeypatch, tmp_path, {"container ls --all --filter": rows})
    with pytest.raises(LabError, match=r"^the Compose project mine is no lab \(container web has no label"):
        purge("mine")
    assert not [line for line in asked() if " rm " in line]


def test_project_of_another_program_may_have_volumes_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = put_docker(monkeypatch, tmp_path, {"volume ls --filter": "data com.docker.compose.project=mine\n"})
    with pytest.raises(LabError, match=r"^the Compose project mine is no lab \(volume data has no label"):
        purge("mine")
    assert not [line for line in asked() if " rm " in line]


def test_images_are_those_with_a_name_and_those_that_have_lost_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_docker(
        monkeypatch,
        tmp_path,
        {
            "image ls --quiet --filter reference=socketlab/*": "2\n1\n",
            "image ls --quiet --filter label=lab.inputs": "3\n2\n",
        },
    )
    assert find_images() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("limit", "is_here", "chosen"),
    [(None, True, None), (16383, True, "16383"), (16384, True, None), (2**20, True, None), (1024, False, None)],
)
def test_limit_of_open_files_is_that_of_an_engine_with_less(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, limit: int | None, is_here: bool, chosen: str | None
) -> None:
    """compose.yaml asks for 16384, which such an engine refuses. Of one elsewhere it is not known."""
    monkeypatch.setattr("lab.servers.docker.compose.read_nofile_limit", lambda: limit)
    monkeypatch.setattr("lab.servers.docker.compose.is_own_engine", lambda _: is_here)
    monkeypatch.delenv("LAB_NOFILE", raising=False)
    assert compose.environ().get("LAB_NOFILE") == chosen
    monkeypatch.setenv("LAB_NOFILE", "7")
    assert compose.environ()["LAB_NOFILE"] == "7"


def test_build_behind_a_proxy_gets_its_ca(compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LAB_CA_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert "LAB_CA_FILE" not in compose.environ()  # there is no such file
    (tmp_path / "ca.pem").touch()
    assert compose.environ()["LAB_CA_FILE"] == str(tmp_path / "ca.pem")
    monkeypatch.setenv("LAB_CA_FILE", "/mine.pem")
    assert compose.environ()["LAB_CA_FILE"] == "/mine.pem"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"version": "20.10.5\n", "compose version": "2.2.3\n"}, "Docker Engine 20.10.5, Compose 2.2.3"),
        ({"version": "20.10.5\n", "compose version": 1}, "Docker Engine 20.10.5"),
        ({"version": 1, "compose version": "2.2.3\n"}, None),
        ({"version": "\n"}, None),
    ],
)
def test_engine_is_described_by_its_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: dict[str, str | int], said: str | None
) -> None:
    put_docker(monkeypatch, tmp_path, answers)
    assert read_engine() == said


def test_engine_that_does_not_answer_is_asked_for_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record of a run describes it."""
    limits: list[float] = []

    def hang(*arguments: str, timeout: float = math.inf) -> Completed:
        limits.append(timeout)
        raise LabError("it took longer")

    monkeypatch.setattr("lab.servers.docker.describe.run_docker", hang)
    assert read_engine() is None
    assert limits == [10.0, 10.0]


def test_only_what_is_being_created_was_not_there_before() -> None:
    """An interrupted Compose never says that it has created something."""
    changes = Changes()
    for line in (" Container a  Running", " Container b  Creating", " Container b  Created", " Volume v  Creating"):
        changes.note(line)
    assert (changes.created, changes.is_new) == (["b"], False)
    changes.note(" Network mine_lab  Creating")
    assert changes.is_new


def test_limits_of_the_environment_are_for_models_only(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAB_MAX_LINE", "$9")
    # Of Compose's files, a dollar sign is an escape of its own.
    assert compose._choose_limits([MODEL, "shell", "locust"]) == {
        MODEL: {"environment": {"LAB_MAX_LINE": "$$9"}},
        "shell": {},
        "locust": {},
    }


@pytest.mark.parametrize(
    ("messages", "first"),
    [
        # A lab that was there keeps what it has.
        (["Container mine-shell-1  Running"], None),
        (["Container mine-a-1  Creating", "Container mine-b-1  Running"], "container rm --force --volumes mine-a-1"),
        (["Network mine_lab  Creating", "Container mine-a-1  Creating"], "container ls --all --filter"),
    ],
)
def test_failed_start_removes_what_it_has_created(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, messages: list[str], first: str | None
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asked = put_docker(monkeypatch, tmp_path, {})
    backend = Containers("mine", CATALOGUE)
    monkeypatch.setattr(backend, "build", lambda _: None)
    monkeypatch.setattr(backend._compose, "up", lambda services, mutual_tls: iter(messages))

    def interrupt() -> None:
        assert find_mark("mine").exists()  # for a time when no engine can say that it has containers
        assert find_mark("mine").parent.stat().st_mode & 0o777 == 0o700
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), backend._started(["a"]):
        interrupt()
    assert [line.startswith(first or "") for line in asked()[:1]] == ([True] if first else [])


def test_server_of_the_gallery_whose_container_is_gone_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_docker(monkeypatch, tmp_path, {"exec": 1})
    (name, *_) = [server.name for server in CATALOGUE.gallery]
    assert Containers("mine", CATALOGUE)._wait_healthy([name], 60.0) == [
        f"{name} has no container: another program removed it while it started"
    ]


def test_server_of_the_gallery_that_is_not_healthy_in_time_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [server.name for server in CATALOGUE.gallery[:2]]
    put_docker(monkeypatch, tmp_path, {})
    assert Containers("mine", CATALOGUE)._wait_healthy(names, 0.0) == [
        f"{name} runs, but gave no answer within 0 s (its health check did not finish); its log ends with:"
        for name in names
    ]


def test_log_of_a_container_is_both_of_its_streams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_docker(monkeypatch, tmp_path, {}, before="echo header && echo line >&2")
    assert Containers("mine", CATALOGUE).logs(MODEL) == "header\nline\n"


def test_container_that_is_not_there_has_no_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_docker(monkeypatch, tmp_path, {"logs": 1})
    with pytest.raises(LabError, match=rf"^{MODEL} was not started: `lab up {MODEL}`$"):
        Containers("mine", CATALOGUE).logs(MODEL)


def test_probe_that_ends_early_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers: dict[str, str | int] = {
        "container ls": "a\n",
        "inspect": json.dumps([describe(MODEL, {"Running": True})]),
    }
    put_docker(monkeypatch, tmp_path, answers)
    backend = Containers("mine", CATALOGUE)

    @contextmanager
    def start(name: str, arguments: Sequence[str]) -> Iterator[FakeHelper]:
        probe = FakeHelper(name)
        probe.say("MemoryError")
        probe.program.code = 1
        yield probe

    monkeypatch.setattr(backend.helpers, "start", start)
    with pytest.raises(NotReadyError, match=r"the readiness probe ended with exit code 1.*\n  MemoryError"):
        backend._wait_ready([MODEL], 2.5)


def test_probe_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says after its timeout which models are not ready; ten seconds later something is wrong with it."""
    answers: dict[str, str | int] = {
        "container ls": "a\n",
        "inspect": json.dumps([describe(MODEL, {"Running": True})]),
    }
    put_docker(monkeypatch, tmp_path, answers)
    clock = set_clock(monkeypatch, tmp_path, containers)
    backend = Containers("mine", CATALOGUE)

    @contextmanager
    def start(name: str, arguments: Sequence[str]) -> Iterator[FakeHelper]:
        yield FakeHelper(name)

    monkeypatch.setattr(backend.helpers, "start", start)
    begun = clock.now
    with pytest.raises(NotReadyError, match=r"^the readiness probe does not end; it said nothing$"):
        backend._wait_ready([MODEL], 30.0)
    assert 40.0 < clock.now - begun < 44.0


def test_state_of_the_gallery_is_that_of_its_containers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (first, second, *_) = CATALOGUE.gallery
    answers: dict[str, str | int] = {
        f"container ls --quiet --all --no-trunc --filter label={PROJECT_LABEL}=mine --filter label=lab.gallery": "a\n",
        "inspect": json.dumps([describe(first.name, {"Running": True}), describe(second.name, {"ExitCode": 4})]),
    }
    put_docker(monkeypatch, tmp_path, answers)
    backend = Containers("mine", CATALOGUE)
    states = {state.model: (state.state, state.exit_code, state.listeners) for state in backend.gallery()}
    assert states[first.name] == ("running", None, first.addresses)
    assert states[second.name] == ("exited", 4, ())
    assert {state for name, (state, _, _) in states.items() if name not in (first.name, second.name)} == {"missing"}
    assert {state.state for state in backend.state()} == {"missing"}


def test_what_cannot_be_removed_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lab.servers.docker.cleanup.STOP_SECONDS", 0.0)
    put_docker(monkeypatch, tmp_path, {"container ls --quiet": "a\n", "container rm": 1})
    with pytest.raises(LabError, match=r"^project mine cannot be removed: it failed$"):
        purge("mine")


def test_projects_are_those_that_have_a_container_a_network_or_a_volume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers: dict[str, str | int] = {
        # Also one that has ended.
        "container ls --all --filter label=lab.model ": f"a=b,{PROJECT_LABEL}=c,d=e\n{PROJECT_LABEL}=b,a=b\n",
        "network ls --filter label=lab.part ": f"a=b,{PROJECT_LABEL}=d\n{PROJECT_LABEL}=b\n",
        "volume ls --filter label=lab.part ": f"my{PROJECT_LABEL}=no,{PROJECT_LABEL}=a\n",
    }
    put_docker(monkeypatch, tmp_path, answers)
    assert find_projects() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", ["container", "network", "volume"])
def test_project_is_removed_until_nothing_of_it_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """A network is in use as long as its last container is there, so a first refusal says nothing."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    left, tried = tmp_path / "left", tmp_path / "tried"
    left.touch()
    # What is noted about it, and the folder of all projects, which has nothing else.
    notes = (find_mark("mine"), find_stamps("mine"))
    notes[0].parent.mkdir()
    for note in notes:
        note.touch()
    before = (
        f'case "$*" in "{kind} ls --quiet"*) [ -e {left} ] && echo 1; exit 0 ;; "{kind} rm"*) '
        f'[ -e {tried} ] && /bin/rm {left} && exit 0; : > {tried}; echo "it is in use" >&2; exit 1 ;; esac'
    )
    asked = put_docker(monkeypatch, tmp_path, {}, before=before)
    assert purge("mine")
    assert not left.exists()
    assert not notes[0].parent.exists()
    assert len([line for line in asked() if line.startswith(f"{kind} rm ")]) == 2


def test_end_of_a_log_has_room_for_empty_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = put_docker(monkeypatch, tmp_path, {}, before='for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "$n" >&2; done')
    assert Containers("mine", CATALOGUE)._last_lines(MODEL) == [str(number) for number in range(3, 13)]
    assert asked() == [f"logs --tail 20 mine-{MODEL}-1"]


def test_model_that_exits_is_not_said_to_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers: dict[str, str | int] = {"container ls": "a\n", "inspect": json.dumps([describe(MODEL, {})])}
    put_docker(monkeypatch, tmp_path, answers)
    backend = Containers("mine", CATALOGUE)

    @contextmanager
    def start(name: str, arguments: Sequence[str]) -> Iterator[FakeHelper]:
        probe = FakeHelper(name)
        probe.say(Outcome(MODEL, False, 2.5, "refused"))
        yield probe

    monkeypatch.setattr(backend.helpers, "start", start)
    with pytest.raises(NotReadyError, match=rf"^{MODEL} exited with code 137 instead of answering"):
        backend._wait_ready([MODEL], 2.5)


@pytest.mark.parametrize(
    ("answer", "late", "found"),
    [
        ("fine\n", False, [("irc", None)]),
        (1, False, [("irc", "it failed")]),
        # A command that is cut off at the deadline ends well, which says nothing.
        ("fine\n", True, []),
        (1, True, []),
    ],
)
def test_health_check_counts_only_if_it_has_ended_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str | int, late: bool, found: list[tuple[str, str | None]]
) -> None:
    put_docker(monkeypatch, tmp_path, {"exec": answer})
    checks = Containers("mine", CATALOGUE)._run_checks({"irc": ["check"]}, -math.inf if late else math.inf)
    assert list(checks) == found


def test_start_that_is_broken_off_is_ended(compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[subprocess.Popen[Any]] = []

    def note(*arguments: Any, **options: Any) -> Any:
        started.append(open_process(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(compose_module, "open_process", note)
    put_docker(monkeypatch, tmp_path, {}, before="echo a line; exec /bin/sleep 60")
    lines = compose.up(["prefork"], mutual_tls=False)
    assert next(lines) == "a line"
    with pytest.raises(KeyboardInterrupt):
        lines.throw(KeyboardInterrupt)  # type: ignore[attr-defined]  # it is a generator
    assert started[0].returncode is not None


def test_removal_of_a_project_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    monkeypatch.setattr(cleanup, "_purge", lambda project: held.append(interrupts.are_held()))
    purge("mine")
    assert held == [True]


@pytest.mark.parametrize("complaint", ["it is busy", ""])
def test_what_cannot_be_removed_in_time_has_a_reason(monkeypatch: pytest.MonkeyPatch, complaint: str) -> None:
    """Without one, it only takes time: here three looks, of which two are late."""
    looks = iter([["x"], ["x"], ["x"], []])
    times = iter([0.0, 1e3, 2e3, 3e3])
    monkeypatch.setattr(cleanup, "_check_is_lab", lambda project: None)
    monkeypatch.setattr(cleanup, "forget", lambda project: None)
    monkeypatch.setattr(cleanup, "time", SimpleNamespace(monotonic=lambda: next(times)))
    found: list[str] = []

    def list_ids(kind: str, project: str) -> list[str]:
        """A network is there as long as there is a container."""
        nonlocal found
        found = next(looks) if kind == "container" else found
        return found

    monkeypatch.setattr(cleanup, "list_ids", list_ids)
    monkeypatch.setattr(cleanup, "remove", lambda kind, ids: complaint if kind == "container" else "")
    if complaint:
        with pytest.raises(LabError, match=r"^project mine cannot be removed: it is busy$"):
            purge("mine")
    else:
        assert purge("mine")
