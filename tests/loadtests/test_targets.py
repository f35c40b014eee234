"""The list of targets: the addresses that it has, in the order of the models, and the lists that are none."""

import json

import pytest

from lab.servers.catalogue import Catalogue
from loadtests.targets import TargetError, Targets
from services.protocol import Address, Transport

ROWS = [
    {"model": "gallery_x", "family": "gallery", "listeners": [{"service": "echo", "address": "tcp://x:7"}]},
    {
        "model": "b",
        "listeners": [
            {"service": "echo", "address": "tcp://b:7"},
            {"service": "echo", "address": "unix:///b/echo"},
            {"service": "http", "address": "tcp://b:80", "path": "/p", "body": "any"},
            {"service": "http", "address": "tls://b:443", "path": "/q", "body": "constant"},
            {"service": "echo", "address": "udp://b"},  # without a port it cannot be loaded
        ],
    },
    {"model": "a", "listeners": [{"service": "echo", "address": "tcp://a:7"}]},
]


def test_targets_are_the_addresses_of_the_list() -> None:
    targets = Targets.from_environ({"LAB_TARGETS": json.dumps(ROWS)})
    assert targets.models == ["b", "a"]
    assert targets.find("b", "echo", Transport.UNIX) == Address(Transport.UNIX, path="/b/echo")
    assert targets.find("a", "echo", Transport.TCP) == Address(Transport.TCP, "a", 7)
    assert targets.find_page("b", "http", Transport.TCP) == ("/p", True)
    assert targets.find_page("b", "http", Transport.TLS) == ("/q", False)
    assert targets.find_page("b", "echo", Transport.TCP) is None
    for missing in (("b", "echo", Transport.UDP), ("c", "echo", Transport.TCP), ("a", "http", Transport.TCP)):
        with pytest.raises(TargetError, match="no address for {1} of {0} over {2}".format(*missing)):
            targets.find(*missing)


def test_targets_without_a_list_are_the_models_of_the_catalogue() -> None:
    targets = Targets.from_environ({})
    assert targets.models == [model.name for model in Catalogue.load().select()]
    assert targets.find("plain_socket", "echo", Transport.TCP) == Address(Transport.TCP, "plain_socket", 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not the output of `lab ls --json`: JSONDecodeError"),
        ("7", "is not the output of `lab ls --json`: TypeError"),
        ("[7]", "is not the output of `lab ls --json`: AttributeError"),
        ('[{"model": "a"}]', "is not the output of `lab ls --json`: KeyError"),
        (json.dumps([ROWS[2] | {"listeners": [{"service": "echo", "address": "a:7"}]}]), ": AddressError"),
        ("[]", "names no model with an address"),
        (json.dumps([ROWS[2] | {"listeners": [{"service": "echo", "address": "udp://a"}]}]), "names no model"),
    ],
)
def test_list_that_is_none_is_an_error(text: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        Targets.from_json(text)
