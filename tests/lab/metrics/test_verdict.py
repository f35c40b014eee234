"""Every verdict, from the figures that lead to it."""

import pytest

from lab.metrics.verdict import (
    WRONG_REPLIES,
    CoreUse,
    Limit,
    Verdict,
    exit_code,
    find_failure,
    is_consistent,
)
from loadtests.buckets import bucket_three_digits
from loadtests.sockets import failures


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, Limit.WAITING),
        ({"server_cores": 0.95}, Limit.SERVER),
        ({"server_cores": 0.95, "generator_cores": 0.99}, Limit.SERVER),
        ({"server_cores": 0.95, "server_allotted": 2}, Limit.WAITING),
        ({"server_cores": 1.9, "server_allotted": 2}, Limit.SERVER),
        ({"generator_cores": 0.95}, Limit.GENERATOR),
        ({"machine_cores": 1.95}, Limit.MACHINE),
        ({"machine_cores": None}, Limit.WAITING),
        ({"machine_cores": 1.95, "cores": None}, Limit.WAITING),
        ({"server_cores": None}, Limit.UNKNOWN),
        ({"generator_cores": None}, Limit.UNKNOWN),
        ({"server_allotted": None}, Limit.UNKNOWN),
        ({"mean_seconds": None}, Limit.UNKNOWN),
        ({"answered": 0}, Limit.FAILED),
        ({"starved": 15}, Limit.STARVED),
        ({"mean_seconds": 0.0010}, Limit.INCONSISTENT),
        ({"mean_seconds": 0.0020}, Limit.INCONSISTENT),
        ({"mean_seconds": 0.0010, "rests": True}, Limit.WAITING),
        ({"mean_seconds": 0.0020, "rests": True}, Limit.INCONSISTENT),
        ({"generator_cores": 0.95, "generators": 2}, Limit.WAITING),
        ({"generator_cores": 1.85, "generators": 2}, Limit.GENERATOR),
        # An open loop is held to what was asked: its users need not all be busy.
        ({"asked": 20_100}, Limit.HELD),
        ({"asked": 20_100, "starved": 3, "mean_seconds": 0.0001, "server_cores": 0.99}, Limit.HELD),
        ({"asked": 20_000, "dropped": 300}, Limit.WAITING),
        ({"asked": 40_000, "server_cores": 0.95}, Limit.SERVER),
        ({"asked": 40_000, "mean_seconds": 0.0001}, Limit.WAITING),
        ({"asked": 40_000, "answered": 0}, Limit.FAILED),
    ],
)
def test_figures_lead_to_their_limit(changes, bound, judge):
    verdict = judge(**changes)
    assert verdict.bound is bound
    assert verdict.reason
    assert verdict.is_lower_bound == (bound in (Limit.GENERATOR, Limit.MACHINE))


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"generator_throttled": 0.4}, Limit.GENERATOR),
        ({"generator_throttled": 0.4, "mean_seconds": 0.0020}, Limit.GENERATOR),
        ({"generator_throttled": 0.01}, Limit.WAITING),
        ({"server_throttled": 0.4}, Limit.SERVER),
        ({"server_throttled": 0.4, "server_cores": 0.4}, Limit.SERVER),
        ({"server_throttled": 0.01}, Limit.WAITING),
        ({"asked": 20_000}, Limit.HELD),
        ({"asked": 20_000, "generator_throttled": 0.4}, Limit.GENERATOR),
        ({"asked": 20_000, "late": 500, "generator_cores": 0.95}, Limit.HELD),
        ({"asked": 20_000, "late": 5_000, "generator_cores": 0.95}, Limit.GENERATOR),
        # Late because the server had no connection free: the generator was idle.
        ({"asked": 20_000, "late": 5_000}, Limit.HELD),
        ({"asked": 30_000, "server_cores": 0.95}, Limit.SERVER),
        ({"asked": 30_000}, Limit.WAITING),
    ],
)
def test_quotas_and_late_requests_lead_to_their_limit(changes, bound, judge):
    assert judge(**changes).bound is bound


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        # Each on the line, and a little beyond or before it.
        ({"generator_throttled": 0.05}, Limit.GENERATOR),
        ({"generator_throttled": 0.0499}, Limit.WAITING),
        ({"server_throttled": 0.05}, Limit.SERVER),
        ({"server_throttled": 0.0499}, Limit.WAITING),
        ({"server_cores": 0.9}, Limit.SERVER),
        ({"server_cores": 0.899}, Limit.WAITING),
        ({"generator_cores": 0.9}, Limit.GENERATOR),
        ({"generator_cores": 0.899}, Limit.WAITING),
        ({"machine_cores": 1.8}, Limit.MACHINE),
        ({"machine_cores": 1.799}, Limit.WAITING),
        ({"asked": 20_000, "answered": 19_800}, Limit.HELD),
        ({"asked": 20_000, "answered": 19_799}, Limit.WAITING),
        ({"asked": 20_000, "late": 1_000, "generator_cores": 0.9}, Limit.HELD),
        ({"asked": 20_000, "late": 1_001, "generator_cores": 0.9}, Limit.GENERATOR),
        # Nothing says that it was busy.
        ({"asked": 20_000, "late": 5_000, "generator_cores": None}, Limit.HELD),
        ({"answered": 99, "failures": {"connection reset": 1}}, Limit.WAITING),
        ({"answered": 99, "failures": {"connection reset": 2}}, Limit.FAILED),
        # 0.85 x 20 of 21 users, as one may be outside an exchange: 10,000 exchanges per second of 1.7 ms.
        ({"users": 21, "mean_seconds": 0.0017}, Limit.WAITING),
        ({"users": 21, "mean_seconds": 0.00169}, Limit.INCONSISTENT),
    ],
)
def test_limits_are_exact(changes, bound, judge):
    assert judge(**changes).bound is bound


@pytest.mark.parametrize(
    ("server", "generator", "changes", "bound"),
    [
        # The server has 0.82 of a core, the generator 0.81. A core is full from 0.9, of which others may have 0.1.
        ((0.9,), (0.5,), {}, Limit.SERVER),
        ((0.919,), (0.5,), {}, Limit.SERVER),
        ((0.921,), (0.5,), {}, Limit.MACHINE),
        ((0.899,), (0.5,), {}, Limit.WAITING),
        ((0.5,), (0.9,), {}, Limit.GENERATOR),
        ((0.5,), (0.909,), {}, Limit.GENERATOR),
        ((0.5,), (0.911,), {}, Limit.MACHINE),
        ((0.5,), (0.899,), {}, Limit.WAITING),
        # Both are full: the server first, but not if others had more of its core.
        ((0.91,), (0.9,), {}, Limit.SERVER),
        ((0.95,), (0.9,), {}, Limit.GENERATOR),
        ((0.5, 0.5), (0.9,), {}, Limit.GENERATOR),
        # A side that says itself that it was busy needs no core to say so.
        ((0.5,), (0.99,), {"server_cores": 0.9}, Limit.SERVER),
        # One thread on three cores, and three processes on three: 2.6 of 3 in use, 2.7 busy.
        ((0.9, 0.9, 0.9), (0.5,), {}, Limit.WAITING),
        ((0.9, 0.9, 0.9), (0.5,), {"server_allotted": 3, "server_cores": 2.6}, Limit.SERVER),
        ((0.9, 0.9, 0.8), (0.5,), {"server_allotted": 3, "server_cores": 2.6}, Limit.WAITING),
        ((0.5,), (0.9,), {"generators": 2}, Limit.WAITING),
        # The clock of the process counts finer than that of the core.
        ((0.9,), (0.5,), {"server_cores": 0.8999}, Limit.SERVER),
    ],
)
def test_a_core_without_an_idle_moment_is_a_limit(server, generator, changes, bound, judge):
    figures = {"server_cores": 0.82, "generator_cores": 0.81} | changes
    none = tuple(0.0 for core in server)
    assert judge(**figures, own=CoreUse(server, generator, none, (0.0,))).bound is bound


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        # The server's core was busy for 0.8 of the time; the generator had no core for 0.1 of it.
        ({}, Limit.MACHINE),
        ({"generator_stolen": (0.099,)}, Limit.WAITING),
        ({"server": (0.799,)}, Limit.WAITING),
        # The other way round.
        ({"server": (0.5,), "server_stolen": (0.2,), "generator": (0.701,)}, Limit.MACHINE),
        ({"server": (0.5,), "server_stolen": (0.2,), "generator": (0.699,)}, Limit.WAITING),
        # What is taken from a side's own core is in the share for which it was busy.
        ({"server_stolen": (0.3,), "generator_stolen": (0.0,)}, Limit.WAITING),
        # The generator had all that it could use.
        ({"generator": (0.95,)}, Limit.GENERATOR),
    ],
)
def test_a_side_waits_while_a_hypervisor_withholds_the_other(changes, bound, judge):
    shares = {"server": (0.8,), "generator": (0.5,), "server_stolen": (0.0,), "generator_stolen": (0.1,)} | changes
    verdict = judge(server_cores=0.7, generator_cores=0.89, own=CoreUse(**shares))
    assert verdict.bound is bound
    assert verdict.is_lower_bound == (bound in (Limit.GENERATOR, Limit.MACHINE))


def test_reason_names_a_hypervisor(judge):
    own = CoreUse((0.84,), (0.5,), (0.0,), (0.125,))
    assert judge(server_cores=0.7, own=own, core_steal=(0.0, 0.125)).reason == (
        "the server's own core was busy for 84% of the time, and a hypervisor took 12% from the other side; "
        "a hypervisor gave 0.12 of 2 cores to others"
    )
    two = CoreUse((0.8, 0.9), (0.5, 0.5, 0.5), (0.0, 0.0), (0.125, 0.0, 0.1))
    assert judge(server_cores=1.4, server_allotted=2, own=two).reason == (
        "the server's own 2 cores were busy for 85% of the time, and a hypervisor took 8% from the other side"
    )
    # 5 % of all cores.
    assert judge(core_steal=(0.1, 0.0)).reason.endswith("; a hypervisor gave 0.10 of 2 cores to others")
    assert "hypervisor" not in judge(core_steal=(0.099, 0.0)).reason


def test_reason_names_what_others_took_of_a_core(judge):
    own = CoreUse((0.95,), (0.5,), (0.0,), (0.0,))
    assert judge(server_cores=0.87, own=own).reason == (
        "the server's own core was busy: the server used 87% of it, others 8%"
    )
    two = CoreUse((0.9, 1.0), (0.5,), (0.0, 0.0), (0.0,))
    assert judge(server_cores=1.4, server_allotted=2, own=two).reason == (
        "the server's own 2 cores were busy: the server used 70% of them, others 25%"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "neither side was busy: the server used 50% of a core, the generator 50% of its own"),
        (
            {"server_allotted": 2, "server_cores": 0.6, "generators": 4, "generator_cores": 1.2, "machine_cores": None},
            "neither side was busy: the server used 30% of 2 cores, the generator 30% of its own",
        ),
        ({"server_cores": 1.9, "server_allotted": 2}, "the server used 95% of 2 cores, all that it can use"),
        ({"generator_cores": 0.95}, "the generator used 95% of its core, the server 50% of a core"),
        (
            {"server_allotted": 2, "server_cores": 0.6, "generators": 2, "generator_cores": 1.9},
            "the generator used 95% of its 2 cores, the server 30% of 2 cores",
        ),
        ({"machine_cores": 1.9}, "all 2 cores were busy: server 0.50, generator 0.50, others 0.90"),
        ({"server_throttled": 0.25}, "the server's CPU quota stopped it for 25% of the time"),
        ({"generator_throttled": 0.25}, "the generator's CPU quota stopped it for 25% of the time"),
        ({"server_cores": None}, "the server's CPU time could not be read, so the limit is unknown"),
        ({"generator_cores": None}, "the generator's CPU time could not be read, so the limit is unknown"),
        ({"server_allotted": None}, "the server's CPU time could not be read, so the limit is unknown"),
        ({"mean_seconds": 0.002}, "rate x response time says 20.0 in flight, and there were 16 users"),
        (
            {"asked": 40_000, "answered": 39_800, "dropped": 300, "late": 400},
            "99.2% of the requested rate was answered, 1.0% of it sent late",
        ),
        ({"failures": {"connection reset": 5_000}}, "20.0% of all exchanges failed: 5000 x connection reset"),
        (
            {"machine_cores": 1.5},
            "neither side was busy: the server used 50% of a core, the generator 50% of its own; "
            "other processes used 0.50 cores meanwhile",
        ),
    ],
)
def test_reason_is_complete(changes, reason, judge):
    assert judge(**changes).reason.replace("\N{MULTIPLICATION SIGN}", "x") == reason


def test_reason_names_late_requests(judge):
    assert "2.5% of it sent late" in judge(asked=20_000, late=500).reason
    assert "for 40% of the time" in judge(generator_throttled=0.4).reason


def test_reason_names_the_figures(judge):
    assert "15 of 16 users" in judge(starved=15).reason
    assert "others 0.95" in judge(machine_cores=1.95).reason


@pytest.mark.parametrize(
    ("changes", "bound", "reason"),
    [
        # One is enough, among 20,000 right ones, whatever else was seen.
        ({"failures": {"wrong bytes": 1}}, Limit.WRONG, "1 wrong reply: 1 x wrong bytes"),
        ({"failures": {"error reply": 2}, "starved": 15}, Limit.WRONG, "2 wrong replies: 2 x error reply"),
        ({"failures": {"wrong bytes": 3}, "answered": 0}, Limit.WRONG, "3 wrong replies: 3 x wrong bytes"),
        ({"failures": {"wrong bytes": 3}, "asked": 20_000}, Limit.WRONG, "3 wrong replies: 3 x wrong bytes"),
        (
            {"failures": {"wrong bytes": 3, "more than was asked for": 2, "connection reset": 900}},
            Limit.WRONG,
            "5 wrong replies: 2 x more than was asked for; 3 x wrong bytes",
        ),
        (
            {"warm_up_failures": {"wrong bytes": 4, "connection reset": 9}},
            Limit.WRONG,
            "4 wrong replies in the warm-up: 4 x wrong bytes",
        ),
        # 202 of 20,202 are 1.0 %, and a little less; 203 are a little more.
        ({"failures": {"connection reset": 202}}, Limit.WAITING, None),
        (
            {"failures": {"connection reset": 3, "time-out: no reply": 200}},
            Limit.FAILED,
            "1.0% of all exchanges failed: 3 x connection reset; 200 x time-out: no reply",
        ),
        ({"warm_up_failures": {"connection reset": 5_000}}, Limit.WAITING, None),
        (
            {"failures": {"connection refused": 5}, "answered": 0},
            Limit.FAILED,
            "not one correct reply in the whole window: 5 x connection refused",
        ),
        ({"answered": 0}, Limit.FAILED, "not one correct reply in the whole window"),
        # Whoever was refused did not wait for a turn.
        (
            {"failures": {"connection refused": 30, "time-out: no reply": 7}, "starved": 8},
            Limit.FAILED,
            "8 of 16 users got no reply in the whole window: 30 x connection refused",
        ),
        (
            {"failures": {"time-out: no connection": 30, "time-out: no reply": 7}, "starved": 8},
            Limit.STARVED,
            "8 of 16 users got no reply in the whole window: they waited for a turn",
        ),
        ({"disturbances": ("a", "b"), "answered": 0}, Limit.DISTURBED, "a; b"),
        ({"disturbances": ("a",), "failures": {"wrong bytes": 1}}, Limit.WRONG, "1 wrong reply: 1 x wrong bytes"),
    ],
)
def test_failing_server_comes_before_any_limit(changes, bound, reason, judge):
    verdict = judge(**changes)
    assert verdict.bound is bound
    assert reason is None or verdict.reason.replace("\N{MULTIPLICATION SIGN}", "x") == reason


def test_wrong_replies_are_reasons_of_the_generator():
    known = {kind.reason for kind in vars(failures).values() if hasattr(kind, "reason")}
    assert known >= WRONG_REPLIES
    # One of these is enough, and one of any other is not.
    assert {reason for reason in known if find_failure(1000, {reason: 1}, {})} == {
        "wrong bytes",
        "error reply",
        "more than was asked for",
        "short reply: closed in the middle",
        "the codec raised an error",
    }


def test_starved_users_only_wait_for_a_turn_if_all_failures_are_time_outs(judge):
    known = {kind.reason for kind in vars(failures).values() if hasattr(kind, "reason")}
    found = {reason: judge(starved=1, failures={reason: 1}).bound for reason in known}
    assert {reason for reason, bound in found.items() if bound is Limit.STARVED} == {
        "time-out: no reply",
        "time-out: no connection",
    }
    assert set(found.values()) == {Limit.STARVED, Limit.WRONG, Limit.FAILED}


def _verdicts(*bounds):
    return [Verdict(bound, "because") for bound in bounds]


@pytest.mark.parametrize("bound", list(Limit))
def test_exit_code_of_each_verdict(bound):
    code = {Limit.WRONG: 1, Limit.FAILED: 1, Limit.DISTURBED: 2}.get(bound, 0)
    assert exit_code(_verdicts(bound)) == code
    # Beside others, wherever it stands.
    assert exit_code(_verdicts(Limit.HELD, bound, Limit.SERVER)) == code
    assert exit_code(_verdicts(bound), allow_failures=True) == (2 if code == 2 else 0)


def test_disturbed_measurement_does_not_blame_the_server():
    assert exit_code(_verdicts(Limit.WRONG, Limit.DISTURBED)) == 2
    assert exit_code([]) == 0


def test_reason_names_other_load_on_the_machine(judge):
    # Of 1.6 cores that were used, server and generator had a half each.
    assert judge(machine_cores=1.6).reason.endswith("; other processes used 0.60 cores meanwhile")
    assert "other processes" not in judge(machine_cores=1.45).reason
    busy = judge(machine_cores=1.6, server_cores=0.95, generator_cores=0.1)
    assert busy.bound is Limit.SERVER
    assert busy.reason == (
        "the server used 95% of a core, all that it can use; other processes used 0.55 cores meanwhile"
    )


def test_reason_names_why_the_server_is_unknown(judge):
    for changes in ({}, {"asked": 20_000}):
        verdict = judge(server_cores=None, server_unknown="docker-proxy only forwards", **changes)
        assert verdict.reason.endswith("; the server's process could not be measured: docker-proxy only forwards")


@pytest.mark.parametrize(
    ("users", "flight", "holds"),
    [
        (16, 16, True),
        (16, 13, True),
        (16, 12.5, False),
        (16, 18.4, True),
        (16, 18.5, False),
        (1, 0.4, True),
        (1, 1.2, False),
        (21, 17, True),
        (21, 16.99, False),
    ],
)
def test_littles_law_decides_consistency(users, flight, holds):
    assert is_consistent(users, flight) is holds


def test_any_number_of_resting_users_may_be_outside():
    assert is_consistent(16, 0.1, rests=True)
    assert not is_consistent(16, 18.5, rests=True)


@pytest.mark.parametrize(
    ("milliseconds", "bucket"),
    [(0.05234, 0.0523), (0.99961, 1.0), (1.2345, 1.23), (12.345, 12.3), (123.45, 123), (1234.5, 1230), (0, 0), (-1, 0)],
)
def test_bucket_keeps_three_digits(milliseconds, bucket):
    assert bucket_three_digits(milliseconds) == pytest.approx(bucket)


def test_detail_after_a_reason_does_not_hide_its_kind(judge):
    wrong = find_failure(1000, {"wrong bytes (b'HULLO' came)": 1, "connection reset": 1}, {})
    assert wrong is not None
    assert (wrong.bound, wrong.reason) == (Limit.WRONG, "1 wrong reply: 1 × wrong bytes (b'HULLO' came)")  # noqa: RUF001
    found = judge(starved=1, failures={"time-out: no reply (after 12 bytes)": 3})
    assert found.bound is Limit.STARVED
