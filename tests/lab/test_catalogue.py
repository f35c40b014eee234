"""compose.yaml is the catalogue: what is read from it, and how it says that it is broken."""

from pathlib import Path

import pytest

from lab.catalogue import COMPOSE_FILE, Catalogue, CatalogueError
from services.protocol import SERVICES, Address, Transport, port_of

MODEL = """\
services:
  mine:
    image: example/mine
    labels:
      lab.model: mine
      lab.family: thread
      lab.summary: a thread each
      lab.limit.overlap: "one at a time"
  helper:
    image: example/helper
"""


def write(folder: Path, text: str, name: str = "compose.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_service_with_the_label_is_a_model(tmp_path: Path) -> None:
    catalogue = Catalogue.load(write(tmp_path, MODEL))
    (model,) = catalogue.models
    assert (model.name, model.family, model.summary, model.extra) == ("mine", "thread", "a thread each", None)
    assert model.limits == {"overlap": "one at a time"}
    assert model.services == tuple(SERVICES)
    assert catalogue.image("helper") == "example/helper"


def test_the_projects_own_catalogue_is_sound() -> None:
    catalogue = Catalogue.load()
    assert catalogue.files[0] == COMPOSE_FILE
    for model in catalogue.models:
        for listener in catalogue.inside(model):
            address = Address.parse(listener.address)
            assert address.transport == listener.transport
            assert address.transport.is_unix or (address.host, address.port) == (
                model.name,
                port_of(listener.service, address.transport),
            )


def test_a_model_listens_on_every_transport_of_its_services(tmp_path: Path) -> None:
    catalogue = Catalogue.load(
        write(tmp_path, MODEL.replace("lab.family", "lab.services: echo, chargen\n      lab.family"))
    )
    found = {(item.service, item.transport): item.address for item in catalogue.inside("mine")}
    assert found == {
        ("echo", "tcp"): "tcp://mine:7",
        ("echo", "tls"): "tls://mine:7007",
        ("echo", "udp"): "udp://mine:7",
        ("echo", "unix"): "unix:///run/lab/mine/echo.sock",
        ("echo", "unixgram"): "unixgram:///run/lab/mine/echo.dgram.sock",
        ("chargen", "tcp"): "tcp://mine:19",
        ("chargen", "unix"): "unix:///run/lab/mine/chargen.sock",
    }


def test_the_override_adds_and_replaces(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL)
    override = """\
services:
  mine: {labels: ["lab.summary=mine, mended"]}
  other: {image: x, labels: {lab.model: other, lab.family: f, lab.summary: s}}
"""
    write(tmp_path, override, "compose.override.yaml")
    catalogue = Catalogue.load(path)
    assert catalogue.names == ("mine", "other")
    assert (catalogue["mine"].family, catalogue["mine"].summary) == ("thread", "mine, mended")


def test_select_keeps_the_catalogues_order_and_names_the_known() -> None:
    catalogue = Catalogue.load()
    first, second, *_ = catalogue.names
    assert [model.name for model in catalogue.select([second, first, second])] == [first, second]
    assert catalogue.select([]) == catalogue.models
    with pytest.raises(CatalogueError, match=rf"unknown model 'nonesuch'; known: {first}, {second}"):
        catalogue.select(["nonesuch"])


BROKEN = {
    "not yaml": ("services:\n  mine: [\n", r"compose\.yaml:\d+: not valid YAML"),
    "a tab": ("services:\n\tmine: {}\n", r"compose\.yaml:2: not valid YAML"),
    "a binary file": ("services: \x00\n", r"compose\.yaml:1: not valid YAML"),
    "a list": ("- services\n", r"compose\.yaml:1: the top of a compose file is a mapping, this is a list"),
    "services are a list": ("name: x\nservices: [a]\n", r"compose\.yaml:2: services is a list"),
    "a service is a text": ("services:\n  mine: yes please\n", r"compose\.yaml:2: service mine is a text"),
    "labels are a number": ("services:\n  mine:\n    labels: 5\n", r"compose\.yaml:3: labels of mine are neither"),
    "another name": (
        MODEL.replace("lab.model: mine", "lab.model: yours"),
        r"compose\.yaml:5: label lab\.model is 'yours'.* 'mine'",
    ),
    "no family": (MODEL.replace("lab.family: thread", "x: y"), r"compose\.yaml:4: model mine has no label lab\.family"),
    "a bad name": (MODEL.replace("mine", "my-model"), r"compose\.yaml:5: 'my-model' cannot name a model"),
    "no image": (MODEL.replace("image: example/mine", "x-y: z"), r"compose\.yaml:5: model mine has no image"),
    "an unknown service": (
        MODEL.replace("lab.family", "lab.services: gopher\n      lab.family"),
        r"compose\.yaml:6: 'gopher'.*greet",
    ),
    "no models": ("services: {helper: {image: x}}\n", r"compose\.yaml: no service has the label lab\.model"),
    "nothing": ("", r"compose\.yaml: no service has the label lab\.model"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_that_names_the_culprit(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message) as caught:
        Catalogue.load(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"absent\.yaml: no such file"):
        Catalogue.load(tmp_path / "absent.yaml")


def test_the_culprit_may_be_the_override(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL)
    write(tmp_path, "\n\nservices:\n  mine:\n    labels:\n      lab.model: yours\n", "compose.override.yaml")
    with pytest.raises(CatalogueError, match=r"compose\.override\.yaml:6: label lab\.model is 'yours'"):
        Catalogue.load(path)


def test_transports_are_plain_text(tmp_path: Path) -> None:
    catalogue = Catalogue.load(write(tmp_path, MODEL))
    assert {type(item.transport) for item in catalogue.inside("mine")} == {str}
    assert {item.transport for item in catalogue.inside("mine")} == set(map(str, Transport))
