"""compose.yaml is the catalogue: its contents, and its errors."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.servers.catalogue import COMPOSE_FILE, Catalogue, Listener, Model
from lab.servers.compose_file import CatalogueError
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


def test_service_with_the_label_is_a_model(tmp_path: Path) -> None:
    catalogue = Catalogue.load(write(tmp_path, MODEL))
    (model,) = catalogue.models
    assert (model.name, model.family, model.summary, model.extra) == ("mine", "thread", "a thread each", None)
    assert model.limits == {"overlap": "one at a time"}
    assert model.services == tuple(SERVICES)
    assert catalogue.image("helper") == "example/helper"


def test_labels_of_a_model_are_read(tmp_path: Path) -> None:
    (plain,) = Catalogue.load(write(tmp_path, MODEL)).models
    assert (plain.extra, plain.rfc_only, plain.profile, plain.uses_all_cores, plain.concurrency) == (
        None,
        False,
        None,
        False,
        None,
    )
    # As an override writes what a model shall not have.
    nothing = 'profiles: []\n    labels:\n      lab.extra: ""\n      lab.services: " "'
    assert Catalogue.load(write(tmp_path, MODEL.replace("labels:", nothing, 1))).models == (plain,)
    more = "lab.extra: trio, lab.contract: rfc, lab.cores: all, lab.concurrency: loop, lab.services: echo"
    labels = f"labels: {{lab.model: mine, lab.family: f, lab.summary: s, lab.transports: tcp, {more}}}"
    (found,) = Catalogue.load(write(tmp_path, f"services: {{mine: {{image: x, {labels}}}}}\n")).models
    assert found == Model(
        name="mine",
        family="f",
        summary="s",
        extra="trio",
        limits={},
        services=("echo",),
        addresses=(Listener("mine", "echo", "tcp", "tcp://mine:7"),),
        rfc_only=True,
        profile=None,
        only_in_container=True,  # there is no services/models/mine.py
        uses_all_cores=True,
        concurrency="loop",
    )


def test_address_without_a_port_has_that_of_its_service(tmp_path: Path) -> None:
    services = (
        "lab.services: 'echo=tcp://other echo=tls://other, command=unix:///s, greet=tcp://other:99 http=tls://other'"
        "\n      lab.family"
    )
    catalogue = Catalogue.load(write(tmp_path, MODEL.replace("lab.family", services)))
    assert [(item.service, item.address) for item in catalogue.listeners_of("mine")] == [
        ("greet", "tcp://other:99"),
        ("echo", "tcp://other:7"),
        ("echo", "tls://other:7007"),
        ("command", "unix:///s"),
        ("http", "tls://other:8443"),
    ]


def test_what_is_not_said_of_a_model_is_not_so() -> None:
    model = Model("m", "f", "s", None, {}, (), ())
    assert (model.rfc_only, model.only_in_container, model.uses_all_cores) == (False, False, False)


def test_listener_is_printed_with_the_page_of_an_external_server() -> None:
    listener = Listener("m", "http", "tcp", "tcp://h:80")
    plain = {"service": "http", "transport": "tcp", "address": "tcp://h:80"}
    assert listener.as_json() == plain
    assert replace(listener, any_body=True).as_json() == plain
    assert replace(listener, path="/a").as_json() == {**plain, "path": "/a", "body": "first"}
    assert replace(listener, path="/a", any_body=True).as_json() == {**plain, "path": "/a", "body": "any"}


def test_environment_and_entry_point_of_a_service(tmp_path: Path) -> None:
    more = 'image: example/mine\n    environment: {A: "1", B: }\n    entrypoint: [a, "2"]'
    catalogue = Catalogue.load(write(tmp_path, MODEL.replace("image: example/mine", more)))
    assert (catalogue.environ("mine"), catalogue.environ("helper")) == ({"A": "1"}, {})
    assert [catalogue.entrypoint(name) for name in ("mine", "helper", "absent")] == [["a", "2"], [], []]


def test_file_of_variables_is_refused_for_a_process(tmp_path: Path) -> None:
    more = "image: example/mine\n    env_file: some.env"
    catalogue = Catalogue.load(write(tmp_path, MODEL.replace("image: example/mine", more)))
    catalogue.check_process("helper")
    with pytest.raises(CatalogueError) as raised:
        catalogue.check_process("mine")
    assert str(raised.value) == (
        f"{tmp_path}/compose.yaml:4: env_file of mine is read only for containers: put the variables under environment"
    )


def test_catalogue_of_the_project_is_valid() -> None:
    catalogue = Catalogue.load()
    assert catalogue.files[0] == COMPOSE_FILE
    for model in catalogue.models:
        for listener in catalogue.listeners_of(model):
            address = Address.parse(listener.address)
            assert address.transport == listener.transport
            assert address.transport.is_unix or (address.host, address.port) == (
                model.name,
                port_of(listener.service, address.transport),
            )


def test_model_listens_on_every_transport_of_its_services(tmp_path: Path) -> None:
    catalogue = Catalogue.load(
        write(tmp_path, MODEL.replace("lab.family", "lab.services: echo, chargen\n      lab.family"))
    )
    found = {(item.service, item.transport): item.address for item in catalogue.listeners_of("mine")}
    assert found == {
        ("echo", "tcp"): "tcp://mine:7",
        ("echo", "tls"): "tls://mine:7007",
        ("echo", "udp"): "udp://mine:7",
        ("echo", "unix"): "unix:///run/lab/mine/echo.sock",
        ("echo", "unixgram"): "unixgram:///run/lab/mine/echo.dgram.sock",
        ("chargen", "tcp"): "tcp://mine:19",
        ("chargen", "unix"): "unix:///run/lab/mine/chargen.sock",
    }


def test_override_adds_and_replaces(tmp_path: Path) -> None:
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
    assert catalogue.select() == tuple(model for model in catalogue.models if not model.profile)
    with pytest.raises(CatalogueError, match=rf"unknown model 'nonesuch'; known: {first}, {second}"):
        catalogue.select(["nonesuch"])


PROFILES = """\
services:
  plain: &model
    image: example/x
    labels: {lab.model: plain, lab.family: f, lab.summary: s}
  spare:
    <<: *model
    profiles: [extra]
    labels: {lab.model: spare, lab.family: f, lab.summary: s, lab.only: container, lab.cores: all}
  other:
    <<: *model
    profiles: [rare]
    labels: {lab.model: other, lab.family: f, lab.summary: s}
"""


@pytest.mark.parametrize(
    ("names", "profiles", "selected"),
    [
        ([], [], ["plain"]),
        (["spare"], [], ["spare"]),
        (["other", "plain"], [], ["plain", "other"]),
        ([], ["extra"], ["plain", "spare"]),
        ([], ["rare", "extra", "rare"], ["plain", "spare", "other"]),
        (["other"], ["extra"], ["spare", "other"]),
    ],
)
def test_model_of_a_profile_is_selected_if_it_or_its_profile_is_named(
    tmp_path: Path, names: list[str], profiles: list[str], selected: list[str]
) -> None:
    catalogue = Catalogue.load(write(tmp_path, PROFILES))
    assert [model.name for model in catalogue.select(names, profiles)] == selected
    assert catalogue.names == ("plain", "spare", "other")
    assert catalogue.profiles == ("extra", "rare")
    assert [model.profile for model in catalogue.models] == [None, "extra", "rare"]


def test_profile_must_be_one_that_a_model_has(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="unknown profile 'tests'; known: extra, rare"):
        Catalogue.load(write(tmp_path, PROFILES)).select([], ["tests"])
    with pytest.raises(CatalogueError, match="unknown profile 'extra'; known: none"):
        Catalogue.load(write(tmp_path, MODEL)).select(["mine"], ["extra"])


GALLERY = """\
services:
  mine:
    image: example/x
    labels: {lab.model: mine, lab.family: f, lab.summary: s}
  post:
    profiles: [gallery]
    labels: {lab.gallery: "keeps mail", lab.services: "imap=tcp://post:143 imap=tls://post:993"}
  plain:
    profiles: [gallery]
    labels: {lab.gallery: "says nothing"}
    image: example/y
"""


def test_server_of_the_gallery_is_not_a_model(tmp_path: Path) -> None:
    catalogue = Catalogue.load(write(tmp_path, GALLERY))
    assert catalogue.names == ("mine",)
    assert catalogue.hosts == ("mine", "post", "plain")
    assert catalogue.profiles == ()
    post, plain = catalogue.gallery
    assert (post.name, post.summary) == ("post", "keeps mail")
    assert post.addresses == (
        Listener("post", "imap", "tcp", "tcp://post:143"),
        Listener("post", "imap", "tls", "tls://post:993"),
    )
    assert plain.addresses == ()
    with pytest.raises(CatalogueError, match="post is a server of the gallery, not a model"):
        catalogue.select(["post"])
    assert catalogue.known_host("post") == "post"
    with pytest.raises(CatalogueError, match="unknown model 'nonesuch'; known: mine"):
        catalogue.known_host("nonesuch")


@pytest.mark.parametrize(
    ("names", "profiles", "selected"),
    [
        ([], [], []),
        (["mine"], ["peers"], []),
        (["plain", "mine"], [], ["plain"]),
        (["plain"], ["gallery"], ["post", "plain"]),
    ],
)
def test_gallery_is_selected_if_named(
    tmp_path: Path, names: list[str], profiles: list[str], selected: list[str]
) -> None:
    catalogue = Catalogue.load(write(tmp_path, GALLERY))
    assert [server.name for server in catalogue.select_gallery(names, profiles)] == selected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('gallery: "says nothing"', 'gallery: " "'), r":10: the label lab\.gallery of plain is empty"),
        (
            ('lab.gallery: "says', 'lab.model: plain, lab.family: f, lab.summary: s, lab.gallery: "says'),
            r":10: plain has both lab\.model and lab\.galler",
        ),
        (
            ("  plain:\n    profiles: [gallery]", "  plain:\n    profiles: [p]"),
            r":9: plain has the label lab\.gallery, so it needs the profile gallery",
        ),
        (
            ("  plain:\n    profiles: [gallery]", "  plain:\n    profiles: [gallery, p]"),
            r":9: profiles of plain has to be a list of one name",
        ),
        (("  plain:\n    profiles: [gallery]", "  plain:\n    x-y: z"), r":8: plain has the label lab\.gallery"),
        (("imap=tcp://post:143", "imap"), r":7: 'imap' in lab\.services of post is not NAME=URL"),
        (("post:\n", "Post:\n"), r":7: 'Post' is not a valid server name"),
    ],
    ids=["no summary", "a model too", "another profile", "two profiles", "no profile", "no address", "a name"],
)
def test_invalid_server_of_the_gallery_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        Catalogue.load(write(tmp_path, GALLERY.replace(*change, 1)))


def test_models_of_profiles_alone_have_to_be_named(tmp_path: Path) -> None:
    catalogue = Catalogue.load(
        write(tmp_path, MODEL.replace("    image: example/mine", "    image: x\n    profiles: [p]"))
    )
    with pytest.raises(CatalogueError, match="every model belongs to a profile, so name one: p"):
        catalogue.select()


def test_override_adds_a_profile(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL)
    write(tmp_path, "services: {mine: {profiles: [p]}}", "compose.override.yaml")
    assert Catalogue.load(path)["mine"].profile == "p"
    path.write_text(MODEL.replace("    image: example/mine", "    image: x\n    profiles: [q]"))
    with pytest.raises(CatalogueError, match=r"override\.yaml:1: profiles of mine has to be a list of one name"):
        Catalogue.load(path)


def test_where_a_model_runs_and_on_how_many_cores(tmp_path: Path) -> None:
    text = PROFILES.replace("plain", "plain_socket").replace("spare", "prefork")
    plain, spare, other = Catalogue.load(write(tmp_path, text)).models
    assert (plain.only_in_container, plain.uses_all_cores) == (False, False)
    assert (spare.only_in_container, spare.uses_all_cores) == (True, True)  # it says so
    assert (other.only_in_container, other.uses_all_cores) == (True, False)  # it has no file here


BROKEN = {
    "not yaml": ("services:\n  mine: [\n", r"compose\.yaml:\d+: not valid YAML"),
    "a tab": ("services:\n\tmine: {}\n", r"compose\.yaml:2: not valid YAML"),
    "a binary file": ("services: \x00\n", r"compose\.yaml:1: not valid YAML"),
    "a list": ("- services\n", r"compose\.yaml:1: the top of a compose file is a mapping, this is a list"),
    "services are a list": ("name: x\nservices: [a]\n", r"compose\.yaml:2: services is a list"),
    "a service is a text": ("services:\n  mine: yes please\n", r"compose\.yaml:2: service mine is a text"),
    "labels are a number": ("services:\n  mine:\n    labels: 5\n", r"compose\.yaml:3: labels of mine is neither"),
    "another name": (
        MODEL.replace("lab.model: mine", "lab.model: yours"),
        r"compose\.yaml:5: label lab\.model is 'yours'.* 'mine'",
    ),
    "no family": (MODEL.replace("lab.family: thread", "x: y"), r"compose\.yaml:4: model mine has no label lab\.family"),
    "a blank family": (MODEL.replace("lab.family: thread", 'lab.family: " "'), r":6: model mine has no label lab\.fam"),
    "a bad name": (MODEL.replace("mine", "my-model"), r"compose\.yaml:5: 'my-model' is not a valid model name"),
    "no image": (MODEL.replace("image: example/mine", "x-y: z"), r"compose\.yaml:5: model mine has no image"),
    "an unknown service": (
        MODEL.replace("lab.family", "lab.services: gopher\n      lab.family"),
        r"compose\.yaml:6: 'gopher'.*greet",
    ),
    "profiles are a text": (
        MODEL.replace("    image: example/mine", "    image: x\n    profiles: p"),
        r"compose\.yaml:4: profiles of mine has to be a list of one name",
    ),
    "a number as a profile": (
        MODEL.replace("    image: example/mine", "    image: x\n    profiles: [5]"),
        r"compose\.yaml:4: profiles of mine has to be a list of one name",
    ),
    "two profiles": (
        MODEL.replace("    image: example/mine", "    image: x\n    profiles: [p, q]"),
        r"compose\.yaml:4: profiles of mine has to be a list of one name",
    ),
    "only elsewhere": (
        MODEL.replace("lab.family", "lab.only: process\n      lab.family"),
        r"compose\.yaml:6: label lab\.only of mine is 'process'; the only value is 'container'",
    ),
    "some cores": (
        MODEL.replace("lab.family", "lab.cores: 2\n      lab.family"),
        r"compose\.yaml:6: label lab\.cores of mine is '2'; the only value is 'all'",
    ),
    "of its own concurrency": (
        MODEL.replace("lab.family", "lab.concurrency: many\n      lab.family"),
        r"compose\.yaml:6: label lab\.concurrency of mine is 'many'; known: one, thread each",
    ),
    "no models": ("services: {helper: {image: x}}\n", r"compose\.yaml: no service has the label lab\.model"),
    "nothing": ("", r"compose\.yaml: no service has the label lab\.model"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_file_is_one_line_that_names_the_culprit(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message) as caught:
        Catalogue.load(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"absent\.yaml: no such file"):
        Catalogue.load(tmp_path / "absent.yaml")


def test_error_in_the_override_is_named_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL)
    write(tmp_path, "\n\nservices:\n  mine:\n    labels:\n      lab.model: yours\n", "compose.override.yaml")
    with pytest.raises(CatalogueError, match=r"compose\.override\.yaml:6: label lab\.model is 'yours'"):
        Catalogue.load(path)


def test_transports_are_plain_text(tmp_path: Path) -> None:
    catalogue = Catalogue.load(write(tmp_path, MODEL))
    assert {type(item.transport) for item in catalogue.listeners_of("mine")} == {str}
    assert {item.transport for item in catalogue.listeners_of("mine")} == set(map(str, Transport))


def test_services_may_be_anywhere(tmp_path: Path) -> None:
    """A custom server: `NAME=URL` for an address elsewhere, and only its own transports."""
    labels = "lab.services: echo=tcp://mine:9000 echo=udp://mine:9000 command\n      lab.transports: tcp, unix\n      "
    catalogue = Catalogue.load(write(tmp_path, MODEL.replace("lab.family", labels + "lab.family")))
    assert [(item.service, item.transport, item.address) for item in catalogue.listeners_of("mine")] == [
        ("echo", "tcp", "tcp://mine:9000"),
        ("echo", "udp", "udp://mine:9000"),
        ("command", "tcp", "tcp://mine:6379"),
        ("command", "unix", "unix:///run/lab/mine/command.sock"),
    ]
    assert catalogue["mine"].only_in_container  # there is no such file among the models
    assert not catalogue["mine"].rfc_only


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("lab.services: ohce", "'ohce' is not a service"),
        ("lab.services: echo=tcp//mine", "'tcp//mine' does not start with"),
        ("lab.services: chargen=udp://mine:19", "chargen is not available over udp"),
        ("lab.services: greet=tls://mine:1", "greet is not available over tls"),
        ("lab.transports: tcp, sctp", "'sctp' is not a transport"),
        ("lab.contract: none", "'none'; the only value is 'rfc'"),
    ],
    ids=lambda value: value.replace(" ", "")[:40],
)
def test_invalid_label_is_named_with_its_line(tmp_path: Path, label: str, said: str) -> None:
    path = write(tmp_path, MODEL.replace("lab.family", f"{label}\n      lab.family", 1))
    with pytest.raises(CatalogueError, match=rf"compose.yaml:\d+: .*{said}"):
        Catalogue.load(path)
