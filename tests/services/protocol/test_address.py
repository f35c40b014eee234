"""Addresses are read, refused with a reason, and written as they were read."""

import pytest

from services.protocol import Address, AddressError, Transport

GOOD = {
    "tcp://127.0.0.1:7": Address(Transport.TCP, "127.0.0.1", 7),
    "tls://127.0.0.1:6380": Address(Transport.TLS, "127.0.0.1", 6380),
    "tcp://0.0.0.0:0": Address(Transport.TCP, "0.0.0.0", 0),  # noqa: S104  # nothing is bound here
    "tcp://localhost": Address(Transport.TCP, "localhost"),
    "tcp://[::1]:65535": Address(Transport.TCP, "::1", 65535),
    "tcp://[fe80::1%eth0]:7": Address(Transport.TCP, "fe80::1%eth0", 7),
    "udp://echo_server:9": Address(Transport.UDP, "echo_server", 9),
    "unix:///run/lab/echo.sock": Address(Transport.UNIX, path="/run/lab/echo.sock"),
    "unixgram:///run/lab/a b%20c?d#e.sock": Address(Transport.UNIXGRAM, path="/run/lab/a b%20c?d#e.sock"),
    "unix:///" + "x" * 106: Address(Transport.UNIX, path="/" + "x" * 106),
}
BAD = {
    "": "does not start with",
    "7": "does not start with",
    "tcp": "does not start with",
    "127.0.0.1:7": "does not start with",
    "http://localhost:80": "does not start with tcp://, tls://, udp://, unix://, unixgram://",
    "TCP://localhost:7": "does not start with",
    "tcp:/localhost:7": "does not start with",
    "tcp://": "not of the form tcp://host:port",
    "tcp://:7": "not of the form tcp://host:port",
    "tcp://localhost:7/": "not of the form tcp://host:port",
    "tcp://localhost:7?x": "not of the form tcp://host:port",
    "udp://localhost:7#x": "not of the form udp://host:port",
    "tcp://user@localhost:7": "not of the form tcp://host:port",
    "tcp://localhost:port": "'port' is not a port, which is a number from 0 to 65535",
    "tcp://localhost:-1": "'-1' is not a port",
    "tcp://localhost:65536": "'65536' is not a port",
    "tcp://localhost:0x50": "'0x50' is not a port",
    "tcp://localhost:٣": "'٣' is not a port",
    "tcp://localhost:" + "9" * 5000: "is not a port",
    "tcp://localhost:": "'' is not a port",
    "tcp://[::1:7": "or tcp://[IPv6 address]:port",
    "tcp://[]:7": "or tcp://[IPv6 address]:port",
    "tcp://[localhost]:7": "or tcp://[IPv6 address]:port",
    "tcp://[::1]7": "or tcp://[IPv6 address]:port",
    "tcp://a b:7": "not of the form tcp://host:port",
    "tcp://::7": "an IPv6 address stands in brackets, as in tcp://[:]:7",
    "tcp://::1:7": "an IPv6 address stands in brackets, as in tcp://[::1]:7",
    "udp://fe80::1:9": "an IPv6 address stands in brackets, as in udp://[fe80::1]:9",
    "unix://relative.sock": "absolute path, as in unix:///",
    "unixgram://": "absolute path, as in unixgram:///",
    "unix:///" + "x" * 107: "at most 107 bytes, this one has 108",
    "unix:///" + "ä" * 54: "at most 107 bytes, this one has 109",
}


@pytest.mark.parametrize(("url", "address"), GOOD.items(), ids=[*GOOD])
def test_good_address_is_read_and_written_again(url: str, address: Address) -> None:
    assert Address.parse(url) == address
    assert str(address) == url


def test_case_of_a_host_does_not_matter() -> None:
    assert str(Address.parse("tcp://LocalHost:7")) == "tcp://localhost:7"
    assert Address.parse("tls://[FE80::1]") == Address(Transport.TLS, "fe80::1")


@pytest.mark.parametrize(("url", "reason"), BAD.items(), ids=[*BAD])
def test_bad_address_is_quoted_with_what_is_wrong(url: str, reason: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(url)
    assert reason in str(caught.value)
    assert repr(url) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["tcp://a\nb:7", "tcp://a:7\n", "unix:///a\x00b", "unix:///a\nb", "unix:///\udcff"])
def test_control_characters_are_refused(url: str) -> None:
    with pytest.raises(AddressError, match="cannot be printed"):
        Address.parse(url)


def test_transports_know_what_they_are() -> None:
    assert [item for item in Transport if item.is_datagram] == [Transport.UDP, Transport.UNIXGRAM]
    assert [item for item in Transport if item.is_unix] == [Transport.UNIX, Transport.UNIXGRAM]


def test_tls_is_carried_by_tcp_and_all_others_by_themselves() -> None:
    assert {transport: transport.carrier for transport in Transport} == {
        **{transport: transport for transport in Transport},
        Transport.TLS: Transport.TCP,
    }
