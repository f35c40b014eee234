"""A load's specification on its way to the generator."""

from argparse import ArgumentParser, Namespace
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.load.workloads import WORKLOADS
from loadtests.contract import FLAGS, LoadSpec, declare, option_of
from loadtests.shapes import LOOPS, SHAPES, level
from services.protocol import Transport

_SECONDS = st.floats(min_value=0.001, max_value=1e6)
_SPECS = st.builds(
    LoadSpec,
    models=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True).map(tuple),
    users=st.integers(1, 10_000),
    workload=st.sampled_from(list(WORKLOADS)),
    transport=st.sampled_from(Transport),
    loop=st.sampled_from(LOOPS),
    arrivals=st.sampled_from(["even", "random"]),
    shape=st.sampled_from(SHAPES),
    rate=st.floats(min_value=1e-6, max_value=1e6),
    payload=st.integers(0, 2**24),
    shape_time=_SECONDS,
    timeout=_SECONDS,
    window=st.none() | _SECONDS,
    warm_up=st.floats(min_value=0.0, max_value=1e6),
)


def parse(arguments: list[str]) -> Namespace:
    """Parse arguments as Locust does, with its own options of the same names."""
    parser = ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["a", "b"])
    parser.add_argument("--users", type=int, dest="num_users")
    parser.add_argument("--spawn-rate", type=float)
    for name in FLAGS:
        parser.add_argument(option_of(name), **declare(name))
    return parser.parse_args(arguments)


@settings(deadline=None)
@given(_SPECS)
def test_specification_survives_the_command_line(spec: LoadSpec) -> None:
    assert LoadSpec.from_options(parse(spec.to_arguments())) == spec


def test_arguments_start_all_users_of_all_models_at_once() -> None:
    spec = LoadSpec(("a", "b"), 5, "echo_1k", Transport.UNIX, rate=1234.56789, payload=77)
    assert " ".join(spec.to_arguments()) == (
        "--models a b --users 10 --spawn-rate 1000 --workload echo_1k --transport unix --loop closed --arrivals even "
        "--shape steady --rate 1234.56789 --payload 77 --shape-time 60.0 --timeout 5.0 --warm-up 0.5"
    )


def test_options_without_arguments_are_the_defaults() -> None:
    spec = LoadSpec.from_options(parse([]))
    assert spec == LoadSpec(models=("a", "b"))
    assert (spec.users, spec.rate, spec.payload, spec.window) == (1, 1000.0, 0, None)
    assert (spec.shape_time, spec.timeout, spec.warm_up) == (60.0, 5.0, 0.5)
    assert (spec.workload, spec.transport) == ("ping", Transport.TCP)
    assert (spec.loop, spec.arrivals, spec.shape) == ("closed", "even", "steady")
    # Locust's default is one user, of all models together.
    assert LoadSpec.from_options(parse(["--models", "a"])).users == 1
    # One user on three models loads one of them.
    assert LoadSpec.from_options(parse(["--models", "a", "b", "c", "--users", "4"])).users == 2


def test_every_field_but_models_and_users_is_a_flag() -> None:
    assert {item.name for item in fields(LoadSpec)} == {"models", "users", *FLAGS}


def test_form_has_all_flags_but_those_of_a_window() -> None:
    assert [name for name, flag in FLAGS.items() if not flag.in_form] == ["window", "warm_up"]


@pytest.mark.parametrize("name", ["transport", "loop", "arrivals", "shape"])
def test_unknown_choice_is_refused(name: str) -> None:
    options = parse(["--models", "a"])
    setattr(options, name, "nonsense")
    with pytest.raises(ValueError, match=f"unknown {name} 'nonsense': one of {FLAGS[name].choices[0]}, "):
        LoadSpec.from_options(options)


def test_loop_tells_whether_requests_are_due_at_times() -> None:
    assert not LoadSpec().is_open
    assert replace(LoadSpec(), loop="open").is_open


def test_shapes_have_their_levels() -> None:
    shares = (0.0, 0.2, 0.39, 0.4, 0.59, 0.6, 1.0, 2.0)
    assert [level("spike", share) for share in shares] == [0.1, 0.1, 0.1, 1.0, 1.0, 0.1, 0.1, 0.1]
    assert [level("ramp", share) for share in shares] == [0.01, 0.2, 0.39, 0.4, 0.59, 0.6, 1.0, 1.0]
    assert [level("steps", share) for share in shares] == [0.01, 0.2, 0.4, 0.4, 0.6, 0.6, 1.0, 1.0]
    assert {level("steady", share) for share in shares} == {1.0}
