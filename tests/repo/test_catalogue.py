"""The catalogue, the files and the extras name the same models."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from lab.base import environ
from lab.base.environ import ENV_UI_PORT
from lab.base.ui_port import UI_PORT
from lab.servers import processes
from lab.servers.catalogue import PEER, Catalogue
from lab.servers.children import STOP_SECONDS
from lab.servers.docker.compose import NOFILE
from lab.servers.scaffold import BLANK
from services.protocol.limits import Limits

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "services" / "models"
CATALOGUE = Catalogue.load()


def test_every_model_has_a_file_and_every_file_is_a_model() -> None:
    files = {path.stem for path in MODELS.glob("*.py")} - {"__init__"}
    assert files == {model.name for model in CATALOGUE.models if model.family != PEER}


def test_every_extra_is_declared_locked_and_used() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    extras -= {"dev", "parquet"}  # no model needs them
    locked = {path.stem for path in (ROOT / "requirements").glob("*.txt")} - {"lab", "dev", "docs"}
    used = {model.extra for model in CATALOGUE.models if model.extra}
    assert extras == locked == used


def test_image_and_build_arguments_are_the_models_name() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for model in CATALOGUE.models:
        service = services[model.name]
        arguments = service["build"].get("args", {})
        assert service["image"] == f"socketlab/{model.name}"
        if model.family == PEER:
            # A stage of its own, or the one of all Python servers, with the name as an argument.
            assert model.name in (service["build"]["target"], arguments.get("MODEL"))
            continue
        assert arguments["MODEL"] == model.name
        assert arguments.get("EXTRA") == model.extra


def test_every_model_declares_its_concurrency() -> None:
    assert not [model.name for model in CATALOGUE.models if model.concurrency is None]


def test_models_with_several_processes_use_all_cores() -> None:
    """The verdict uses the one label, and theory the other."""
    several = {"process each", "processes", "loops"}
    own = [model for model in CATALOGUE.models if model.family != PEER]
    assert {model.name for model in own if model.uses_all_cores} == {
        *(model.name for model in own if model.concurrency in several),
        "threads_nogil",
    }
    families = {"one": {"sequential"}, "thread each": {"thread"}, "threads": {"thread"}, "loops": {"process"}}
    families |= {"process each": {"process"}, "processes": {"process"}}
    families |= {"loop": {"readiness loop", "event loop", "coroutine"}}
    for model in own:
        assert model.family in families[str(model.concurrency)], model.name


def test_instruments_trust_the_labs_ca_and_have_its_certificate() -> None:
    """And they have the folder of a locustfile if they read it: each worker does that itself."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    instruments = {name: each for name, each in services.items() if each["image"] == "socketlab/instrument"}
    assert set(instruments) == {"shell", "tests", "locust", "locust_worker", "locust_persistent", "soak"}
    for name, service in instruments.items():
        assert service["environment"] == {
            "LAB_TLS_CA": "/run/secrets/tls_ca",
            "LAB_TLS_CLIENT_CERT": "/run/secrets/tls_client",
        }
        assert service["secrets"] == ["tls_ca", "tls_client"]
        mounted = "${LAB_LOCUSTFILES:-/dev/null}:/locustfiles:ro" in service["volumes"]
        assert mounted == (name in ("locust", "locust_worker")), name
        # For many short connections.
        assert ("net.ipv4.tcp_tw_reuse" in service["sysctls"]) == name.startswith("locust"), name


@pytest.mark.parametrize("name", [model.name for model in CATALOGUE.models if model.family != PEER])
def test_model_opens_with_its_consequences_and_has_one_public_function(name: str) -> None:
    source = (MODELS / f"{name}.py").read_text()
    opening = source[: source.index('"""', 3)]
    phrases = ("Unit of concurrency", "What blocks whom", "What runs out first")
    places = [opening.find(f"\n{phrase}:") for phrase in phrases]
    assert -1 not in places
    assert places == sorted(places)
    assert re.search(r"^def serve\(listeners: list\[Listener\]\) -> None:$", source, re.MULTILINE)


def test_blanks_of_lab_new_are_filled_in() -> None:
    left = [
        f"{path.relative_to(ROOT)}: {BLANK} in line {number}"
        for path in (ROOT / "compose.yaml", *(ROOT / "docs" / "models").glob("*.md"), *MODELS.glob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BLANK in line
    ]
    assert not left, "\n".join(left)


def test_no_model_publishes_a_port_and_the_interface_only_on_loopback() -> None:
    for name, service in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].items():
        if name == "locust":
            assert service["ports"] == [f"127.0.0.1:${{{ENV_UI_PORT}:-{UI_PORT}}}:{UI_PORT}"]
        else:
            assert "ports" not in service


def test_both_backends_have_the_same_limits() -> None:
    """Of open files, and of the time that a server has after a stop signal."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service["stop_grace_period"] == f"{STOP_SECONDS:g}s", name
        if "lab.model" in service["labels"]:
            default = f"${{LAB_NOFILE:-{NOFILE}}}"
            assert service["ulimits"] == {"nofile": {"soft": default, "hard": default}}, name
    assert f'"${{LAB_NOFILE:-{NOFILE}}}"' in processes._SUPERVISE
    # A server that drains until the end of its own period still ends by itself.
    assert Limits().grace < STOP_SECONDS


def test_variables_have_the_names_that_users_and_compose_files_know() -> None:
    names = {name: value for name, value in vars(environ).items() if name.startswith("ENV_")}
    assert len(names) > 10
    assert names == {name: f"LAB_{name.removeprefix('ENV_')}" for name in names}
    text = "".join((ROOT / name).read_text() for name in ("compose.yaml", "deploy/stack.yaml", "deploy/ui.yaml"))
    known = {*names.values(), *(item.metadata["variable"] for item in fields(Limits))}
    # Those that a command sets for Compose alone, or a shell for the stack.
    others = {"LAB_NOFILE", "LAB_CA_FILE", "LAB_TLS_DIR", "LAB_TLS_CLIENT_CA", "LAB_MODEL", "LAB_WORKERS", "LAB_LOAD"}
    assert set(re.findall(r"\$\{(LAB_\w+)", text)) <= known | others
