"""The catalogue, the files and the extras name the same models."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from lab.servers.catalogue import PEER, Catalogue
from lab.servers.scaffold import BLANK

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
            assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        else:
            assert "ports" not in service
