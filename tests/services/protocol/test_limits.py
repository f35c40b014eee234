"""Limits come from the environment, and a wrong one is named."""

from dataclasses import Field, FrozenInstanceError, fields

import pytest

from services.protocol import BLOCKING_WORKERS, LimitError, Limits

VARIABLES = {item.name: item.metadata["variable"] for item in fields(Limits)}


# Each default and the least that is allowed, as docs/protocol.md promises them.
VALUES = {
    "line": (65_536, 64),
    "bulk": (1_048_576, 1),
    "array": (1024, 1),
    "request": (2_097_152, 1),
    "transaction": (2_097_152, 1),
    "pipeline": (1024, 1),
    "sleep_ms": (60_000, 1),
    "burn": (10_000_000, 1),
    "blob": (67_108_864, 1),
    "http_line": (8192, 64),
    "http_headers": (100, 1),
    "http_header_bytes": (32_768, 64),
    "http_body": (1_073_741_824, 0),
    "http_head_seconds": (20.0, 0.01),
    "http_body_rate": (500, 0),
    "http_requests": (1_000_000, 1),
    "ws_frame": (1_048_576, 125),
    "ws_message": (1_048_576, 125),
    "ws_inflated": (1_048_576, 125),
    "idle": (300.0, 0.01),
    "connections": (12_000, 1),
    "backlog": (1024, 1),
    "workers": (0, 0),
    "reuse_port": (0, 0),
    "linger": (2.0, 0),
    "grace": (5.0, 0),
}


def test_defaults_and_minimums_are_those_that_are_promised() -> None:
    assert {item.name: (getattr(Limits(), item.name), item.metadata["minimum"]) for item in fields(Limits)} == VALUES
    assert BLOCKING_WORKERS == 64


@pytest.mark.parametrize("name", VALUES)
def test_less_than_the_promised_minimum_is_refused(name: str) -> None:
    minimum = VALUES[name][1]
    assert getattr(Limits.from_environ({VARIABLES[name]: str(minimum)}), name) == minimum
    less = minimum - 0.001 if isinstance(VALUES[name][0], float) else minimum - 1
    with pytest.raises(LimitError, match=VARIABLES[name]):
        Limits.from_environ({VARIABLES[name]: str(less)})


def test_empty_environment_gives_the_defaults() -> None:
    assert Limits.from_environ({}) == Limits()
    assert Limits.from_environ({"PATH": "/bin", "LAB_MAX_NOTHING": "x"}) == Limits()


def test_each_limit_has_a_variable_of_its_own() -> None:
    assert len(set(VARIABLES.values())) == len(VARIABLES)
    assert all(variable.startswith("LAB_") for variable in VARIABLES.values())


@pytest.mark.parametrize("name", VARIABLES)
def test_each_limit_can_be_set(name: str) -> None:
    limits = Limits.from_environ({VARIABLES[name]: "125"})
    assert getattr(limits, name) == 125
    assert type(getattr(limits, name)) is type(getattr(Limits(), name))
    assert {other: getattr(limits, other) for other in VARIABLES if other != name} == {
        other: getattr(Limits(), other) for other in VARIABLES if other != name
    }


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("text", ["", "many", "-1", "nan", "0x10", "1 000"])
def test_wrong_limit_names_its_variable_and_what_it_held(name: str, text: str) -> None:
    with pytest.raises(LimitError) as caught:
        Limits.from_environ({VARIABLES[name]: text})
    assert str(caught.value).startswith(f"{VARIABLES[name]}={text!r} is not a ")


@pytest.mark.parametrize("item", fields(Limits), ids=lambda item: item.name)
def test_minimum_is_allowed_and_less_is_not(item: Field[object]) -> None:
    minimum, variable = item.metadata["minimum"], item.metadata["variable"]
    assert getattr(Limits.from_environ({variable: str(minimum)}), item.name) == minimum
    with pytest.raises(LimitError, match=f"of at least {minimum:g}"):
        Limits.from_environ({variable: str(minimum - 1)})


@pytest.mark.parametrize("text", ["1000001", "inf", "1e300"])
def test_time_that_no_selector_can_wait_is_refused(text: str) -> None:
    """An infinite time ended a server with the first client that it had to wait for."""
    times = [VARIABLES[name] for name in VARIABLES if isinstance(getattr(Limits(), name), float)]
    assert "LAB_IDLE_SECONDS" in times
    for variable in times:
        with pytest.raises(LimitError, match=f"^{variable}='{text}' is not a number of at most 1000000 seconds$"):
            Limits.from_environ({variable: text})
        Limits.from_environ({variable: "1000000"})
    assert Limits.from_environ({"LAB_MAX_BLOB": "1000001"}).blob == 1_000_001


def test_counts_are_whole_and_times_need_not_be() -> None:
    assert Limits.from_environ({"LAB_IDLE_SECONDS": "0.5"}).idle == 0.5
    with pytest.raises(LimitError, match="whole number"):
        Limits.from_environ({"LAB_MAX_BULK": "1.5"})


def test_the_bound_for_a_connection_follows_from_the_limits() -> None:
    small = {"ws_frame": 125, "ws_message": 125, "ws_inflated": 125, "http_line": 64, "http_header_bytes": 64}
    rest = 2 * 256 * 1024 + 2 * 64 * 1024
    limits = Limits(request=1000, bulk=500, transaction=70, **small)
    assert limits.connection_bytes == 2 * 1000 + 70 + 500 + rest
    websocket = Limits(request=1000, bulk=500, transaction=70, **{**small, "ws_frame": 3000, "ws_inflated": 5000})
    assert websocket.connection_bytes == 2 * 3000 + 2 * 125 + 3 * 5000 + rest
    http = Limits(request=1000, bulk=500, transaction=70, **{**small, "http_line": 9000})
    assert http.connection_bytes == 2 * 9064 + rest
    assert Limits().as_dict()["connection_bytes"] == Limits().connection_bytes


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().bulk = 1  # type: ignore[misc]
