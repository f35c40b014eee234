"""A person's Docker, Compose and pip settings: which the lab obeys, and that no other changes what it does.

Each documented variable and each property of config.json is here once. What they do to a lab is tried with all of them
set at the same time, on a real engine.
"""

import json
import os
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

import docker
import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.engine import EngineError, client
from lab.engine.client import KEPT, KEPT_KEYS, find_context, is_own_engine, make_environ
from lab.engine.command import run
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers

DOCKER = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
Lab = Callable[..., "CompletedProcess[str]"]

# Those of Compose, of the client, of BuildKit and of buildx, as their documentation lists them. Each with a value that
# does harm: another file, another project, another engine's builder, no BuildKit, no real run.
DROPPED = {
    "COMPOSE_ANSI": "always",
    "COMPOSE_BAKE": "true",
    "COMPOSE_CONVERT_WINDOWS_PATHS": "1",
    "COMPOSE_DISABLE_ENV_FILE": "0",
    "COMPOSE_DRY_RUN": "1",
    "COMPOSE_ENV_FILES": "/nonexistent/env",
    "COMPOSE_EXPERIMENTAL": "1",
    "COMPOSE_FILE": "/nonexistent/compose.yaml",
    "COMPOSE_HTTP_TIMEOUT": "1",
    "COMPOSE_IGNORE_ORPHANS": "1",
    "COMPOSE_MENU": "1",
    "COMPOSE_PARALLEL_LIMIT": "1",
    "COMPOSE_PATH_SEPARATOR": "/",
    "COMPOSE_PROFILES": "load,soak,browser",
    "COMPOSE_PROGRESS": "tty",
    "COMPOSE_PROJECT_NAME": "somebody-elses",
    "COMPOSE_REMOVE_ORPHANS": "1",
    "COMPOSE_STATUS_STDOUT": "1",
    "BUILDKIT_COLORS": "run=red",
    "BUILDKIT_HOST": "tcp://127.0.0.1:1",
    "BUILDKIT_PROGRESS": "rawjson",
    "BUILDX_BAKE_ENTITLEMENTS_FS": "1",
    "BUILDX_BUILDER": "nonexistent",
    "BUILDX_CONFIG": "/nonexistent/buildx",
    "BUILDX_EXPERIMENTAL": "1",
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "DOCKER_BUILDKIT": "0",
    "DOCKER_CLI_HINTS": "1",
    "DOCKER_CONTENT_TRUST": "1",
    "DOCKER_CONTENT_TRUST_SERVER": "https://127.0.0.1:1",
    "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
    "DOCKER_HIDE_LEGACY_COMMANDS": "1",
    "SOURCE_DATE_EPOCH": "1",
}
# Which engine, how it is reached, with which credentials.
OBEYED = {
    "DOCKER_API_VERSION",
    "DOCKER_AUTH_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_CUSTOM_HEADERS",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
}
PROXY = "http://127.0.0.1:1"
CONFIG = {
    "aliases": {"builder": "nonexistent"},
    "configFormat": "{{nonsense",
    "detachKeys": "ctrl-nonsense",
    "experimental": "enabled",
    "features": {"hooks": "true"},
    "imagesFormat": "{{nonsense",
    "networksFormat": "{{nonsense",
    "nodesFormat": "{{nonsense",
    "plugins": {"compose": {"hooks": "up"}},
    "pluginsFormat": "{{nonsense",
    "proxies": {"default": {"httpProxy": PROXY, "httpsProxy": PROXY, "ftpProxy": PROXY, "allProxy": PROXY}},
    "pruneFilters": ["label=nonsense"],
    "psFormat": "{{nonsense",
    "secretFormat": "{{nonsense",
    "serviceInspectFormat": "{{nonsense",
    "servicesFormat": "{{nonsense",
    "statsFormat": "{{nonsense",
    "tasksFormat": "{{nonsense",
    "volumesFormat": "{{nonsense",
}
KEPT_CONFIG = {
    "auths": {"registry.example": {"auth": "eA=="}},
    "cliPluginsExtraDirs": ["/nonexistent"],
    "credHelpers": {"registry.example": "none"},
    "credsStore": "none",
    "currentContext": "default",
    "HttpHeaders": {"X-Lab": "1"},
}
PIP = {"PIP_TARGET": "/nonexistent", "PIP_USER": "1", "PIP_DRY_RUN": "1", "PIP_INDEX_URL": "http://127.0.0.1:1/"}


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the lab's own folders of the client's configuration are made."""
    monkeypatch.setattr(client, "_CONFIGS", tmp_path / "configs")
    return tmp_path / "configs"


def make_config(folder: Path, config: object) -> dict[str, str]:
    """A folder as a person has it, with plugins and contexts; the environment that names it."""
    for name in ("cli-plugins", "contexts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "contexts" / "x").write_text("x")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), "latin-1")
    return {"DOCKER_CONFIG": str(folder)}


@pytest.mark.parametrize("variable", DROPPED)
@pytest.mark.parametrize("for_build", [False, True])
def test_variable_changes_nothing(variable: str, for_build: bool) -> None:
    plain = {"PATH": "/bin", "HOME": "/nonexistent"}
    assert make_environ({**plain, variable: DROPPED[variable]}, for_build=for_build) == make_environ(
        plain, for_build=for_build
    )


@pytest.mark.parametrize("variable", sorted(OBEYED))
def test_variable_is_obeyed(variable: str) -> None:
    plain = {"PATH": "/bin", "HOME": "/nonexistent"}
    assert make_environ({**plain, variable: "x"}) == {**plain, variable: "x"}


def test_every_kept_name_is_tested() -> None:
    assert OBEYED == KEPT
    assert set(KEPT_CONFIG) == KEPT_KEYS


@pytest.mark.parametrize("key", CONFIG)
def test_property_of_the_configuration_is_left_out(tmp_path: Path, configs: Path, key: str) -> None:
    theirs = make_config(tmp_path / "their own", {**KEPT_CONFIG, key: CONFIG[key]})
    made = Path(make_environ(theirs)["DOCKER_CONFIG"])
    assert made.parent == configs
    assert json.loads((made / "config.json").read_text()) == KEPT_CONFIG
    assert stat.S_IMODE((made / "config.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert (made / "contexts" / "x").read_text() == "x"
    assert (made / "cli-plugins").is_dir()
    # A build reaches its mirrors as the person's other builds do.
    assert make_environ(theirs, for_build=True)["DOCKER_CONFIG"] == theirs["DOCKER_CONFIG"]


def test_changed_configuration_is_read_again(tmp_path: Path, configs: Path) -> None:
    theirs = make_config(tmp_path / "own", {"psFormat": "x", "credsStore": "a"})
    first = make_environ(theirs)
    make_config(tmp_path / "own", {"psFormat": "x", "credsStore": "b"})
    (tmp_path / "own" / "later").touch()
    assert make_environ(theirs) == first
    made = Path(first["DOCKER_CONFIG"])
    assert json.loads((made / "config.json").read_text()) == {"credsStore": "b"}
    assert (made / "later").exists()
    assert sorted(path.name for path in made.iterdir()) == ["cli-plugins", "config.json", "contexts", "later"]
    other = make_config(tmp_path / "other", {"psFormat": "x"})
    assert make_environ(other)["DOCKER_CONFIG"] != first["DOCKER_CONFIG"]


@pytest.mark.parametrize(
    "config", [KEPT_CONFIG, {}, "no JSON", "[1]", "\xff"], ids=["kept", "empty", "broken", "a list", "no UTF-8"]
)
def test_configuration_without_other_properties_is_used_unchanged(
    tmp_path: Path, configs: Path, config: object
) -> None:
    theirs = make_config(tmp_path / "own", config)
    assert make_environ(theirs) == theirs
    assert not configs.exists()


def test_default_configuration_is_in_the_home_directory(tmp_path: Path, configs: Path) -> None:
    make_config(tmp_path / ".docker", CONFIG)
    made = make_environ({"HOME": str(tmp_path)})
    assert Path(made["DOCKER_CONFIG"]).parent == configs
    assert make_environ({"HOME": str(tmp_path / "none")}) == {"HOME": str(tmp_path / "none")}


def test_unwritable_configuration_is_an_error(tmp_path: Path, configs: Path) -> None:
    configs.write_text("a file")
    with pytest.raises(EngineError, match=r"the Docker client's configuration cannot be written: .*: Not a directory"):
        make_environ(make_config(tmp_path / "own", CONFIG))


@pytest.mark.parametrize(
    ("environ", "config", "context", "own"),
    [
        ({}, {}, "default", True),
        ({}, {"currentContext": "far"}, "far", False),
        ({}, {"currentContext": "default"}, "default", True),
        ({"DOCKER_CONTEXT": "near"}, {"currentContext": "far"}, "near", False),
        ({"DOCKER_CONTEXT": "default"}, {"currentContext": "far"}, "default", True),
        ({"DOCKER_HOST": "tcp://far:1", "DOCKER_CONTEXT": "near"}, {}, "default", False),
        ({"DOCKER_HOST": "unix:///var/run/docker.sock"}, {"currentContext": "far"}, "default", True),
        ({"DOCKER_HOST": "unix:///home/x/docker.sock"}, {}, "default", False),
    ],
)
def test_context_and_builder(
    tmp_path: Path, environ: dict[str, str], config: dict[str, str], context: str, own: bool
) -> None:
    """The builder that goes by a context's name is that context's own engine."""
    environ = {**make_config(tmp_path / "own", config), **environ}
    assert find_context(environ) == context
    assert is_own_engine(environ) == own
    assert make_environ(environ, for_build=True)["BUILDX_BUILDER"] == context


@pytest.mark.parametrize("environ", [{}, {"HOME": "", "DOCKER_CONFIG": ""}])
def test_without_home_the_clients_folder_is_that_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """As the client finds it."""
    make_config(tmp_path / ".docker", {"currentContext": "far"})
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert find_context(environ) == "far"


# Stands in for the client: notes how it was called, and says nothing.
RECORDER = """#!/bin/sh
{ printf 'CALL %s\\n' "$*"; env; } >> "$RECORD"
"""


def test_every_call_of_the_client_leaves_them_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those for facts, for the engine's status, for the base image, and for a swarm."""
    from lab.servers.docker.describe import read_engine
    from tools.swarm_demo import docker as swarm_docker

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(RECORDER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    record = tmp_path / "record"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(record))
    monkeypatch.setenv("HTTP_PROXY", PROXY)  # the client may need it to reach an engine
    for name, value in {**DROPPED, **make_config(tmp_path / "own", CONFIG)}.items():
        monkeypatch.setenv(name, value)
    backend = Containers("p", Catalogue.load())
    calls: list[Callable[[], object]] = [
        lambda: backend.state(),
        lambda: backend.helpers.run_service("soak"),
        lambda: backend.helpers.run(["true"]),
        lambda: list(backend._compose.up(["shell"], mutual_tls=False)),
        lambda: run(["docker", "info"], env={"PATH": os.environ["PATH"]}),
        read_engine,
        lambda: swarm_docker("info"),
    ]
    for call in calls:
        record.unlink(missing_ok=True)
        # The recorder's silence is no answer. What counts is how it was asked.
        with suppress(LabError):
            call()
        lines = record.read_text().splitlines()
        names = {line.partition("=")[0] for line in lines}
        builds = [line for line in lines if line.startswith("CALL compose") and " build " in line]
        assert not (set(DROPPED) - ({"BUILDX_BUILDER"} if builds else set())) & names
        assert "BUILDX_BUILDER=nonexistent" not in lines
        assert (f"DOCKER_CONFIG={tmp_path / 'own'}" in lines) == bool(builds)
        assert f"HTTP_PROXY={PROXY}" in lines
        composed = [line for line in lines if line.startswith("CALL compose --ansi")]
        assert all(" --env-file /dev/null " in line for line in composed)


class TestAllAtOnce:
    pytestmark = DOCKER

    def test_lab_behaves_as_without_the_variables(
        self, lab: Lab, docker_project: str, engine: docker.DockerClient, tmp_path: Path
    ) -> None:
        """In a model, in the shell, in an instrument, and in what joins a model's network; `lab tour` works."""
        # The person's own plugins stay: they may be the only ones.
        own = make_config(tmp_path / "own", CONFIG)
        theirs = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"
        for plugin in theirs.iterdir() if theirs.is_dir() else ():
            (tmp_path / "own" / "cli-plugins" / plugin.name).symlink_to(plugin.resolve())
        folder = tmp_path / "clone"
        folder.mkdir()
        text = (ROOT / "compose.yaml").read_text().replace("context: .", f"context: {ROOT}")
        (folder / "compose.yaml").write_text(text)
        (folder / ".env").write_text("COMPOSE_PROJECT_NAME=other\nCOMPOSE_PROFILES=load\nHTTP_PROXY=x\nLAB_NONE=1\n")
        options = ["--file", str(folder / "compose.yaml"), "--backend", "docker", "--project", docker_project]
        environ = {**DROPPED, **PIP, **own}
        # A build obeys the person's proxy, and there is none at this one.
        images = ["plain_socket", "shell", "locust_persistent", "gallery_web", "clients"]
        Containers("t", Catalogue.load()).build(images)
        up = lab(*options, "up", "plain_socket", environ=environ)
        assert (up.returncode, up.stdout) == (0, "1 model answers: `lab ls` lists them\n"), up.stderr
        try:
            inside = lab(*options, "shell", "-c", "env", environ=environ)
            assert inside.returncode == 0, inside.stderr
            assert not [line for line in inside.stdout.splitlines() if is_foreign(line)]
            # `engine.containers.list` fails if a container of another test ends between being listed and inspected.
            listed = [name.strip("/") for item in engine.api.containers(all=True) for name in item["Names"]]
            names = {name for name in listed if docker_project in name}
            assert names == {f"{docker_project}-shell-1", f"{docker_project}-plain_socket-1"}
            for name in names:
                assert not [line for line in engine.containers.get(name).attrs["Config"]["Env"] if is_foreign(line)]
            with pytest.MonkeyPatch.context() as patch:
                for name, value in environ.items():
                    patch.setenv(name, value)
                backend = Containers(docker_project, Catalogue.load(folder / "compose.yaml"))
                assert not [
                    line
                    for line in backend.faults.run_in_network("plain_socket", ["env"]).splitlines()
                    if is_foreign(line)
                ]
                with backend.helpers.start_service("the load generator", "locust_persistent") as instrument:
                    env = engine.containers.get(instrument.host).attrs["Config"]["Env"]
                assert not [line for line in env if is_foreign(line)]
            toured = lab(*options, "tour", "urllib", environ=environ)
            assert toured.returncode == 0, toured.stdout + toured.stderr
        finally:
            assert lab(*options, "down", environ=environ).returncode == 0


def is_foreign(line: str) -> bool:
    name, _, value = line.partition("=")
    return name in DROPPED or name in PIP or "proxy" in name.lower() or PROXY in value


def test_pip_settings_do_not_move_the_venv() -> None:
    """Where packages come from is a person's own; where they go, and whether, is the Makefile's."""
    said = subprocess.run(
        ["make", "--dry-run", "--always-make", "install"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    calls = [line for line in said.splitlines() if " -m pip install " in line]
    assert len(calls) == 3
    for variable in (
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_DRY_RUN",
        "PIP_REQUIRE_HASHES",
        "PIP_NO_BUILD_ISOLATION",
    ):
        assert all(f"-u {variable} " in line for line in calls), variable
    assert all(" PIP_USER=0 " in line for line in calls)
