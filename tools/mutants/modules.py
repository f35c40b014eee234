"""Which modules faults are planted in, and which tests cover them.

A group is run by one process, so its modules share the time that its tests take to be collected and run once. Only unit
tests belong here: what a child process of a test does is not seen.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Group:
    """Modules and their tests, as patterns from the root.

    Args:
        patched: the modules import Locust, so the process is patched by gevent from its start.
    """

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    patched: bool = False

    def list_modules(self) -> list[str]:
        """Give the files of the modules. A pattern that matches nothing is an error: a file has been renamed."""
        return _expand(self.modules)

    def list_tests(self) -> list[str]:
        """Give the files of the tests."""
        return _expand(self.tests)


def _expand(patterns: tuple[str, ...]) -> list[str]:
    found = []
    for pattern in patterns:
        files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
        if not files:
            raise ValueError(f"tools/mutants/modules.py: {pattern} matches no file")
        found += [file for file in files if file not in found]
    return found


GROUPS = (
    Group(
        "measurement",
        ("lab/load/measurement.py", "lab/metrics/verdict.py", "loadtests/sockets/histogram.py", "loadtests/parts.py"),
        ("tests/loadtests/test_measurement.py", "tests/loadtests/test_verdict.py", "tests/lab/test_histogram.py"),
    ),
    Group(
        "meters",
        (
            "lab/metrics/meters.py",
            "lab/metrics/socket_owner.py",
            "lab/load/external_server.py",
            "lab/metrics/cgroup.py",
            "lab/metrics/process.py",
            "lab/metrics/sample.py",
            "lab/load/cores.py",
        ),
        (
            "tests/loadtests/test_meters.py",
            "tests/loadtests/test_owner.py",
            "tests/loadtests/test_pinning.py",
        ),
    ),
    Group("feed", ("lab/load/telemetry.py", "lab/load/messages.py"), ("tests/loadtests/test_feed.py",)),
    Group("thresholds", ("lab/load/thresholds.py",), ("tests/loadtests/test_thresholds.py",)),
    Group("store", ("lab/experiments/store.py",), ("tests/bench/test_store.py",)),
    Group(
        "check",
        ("lab/experiments/conformance/suite.py", "lab/experiments/conformance/plugin.py"),
        ("tests/lab/test_check.py",),
    ),
    Group(
        "output",
        ("lab/base/output.py", "lab/base/interrupts.py"),
        ("tests/lab/test_output.py", "tests/lab/test_interrupts.py", "tests/faults/test_command.py"),
    ),
    Group(
        "load",
        ("loadtests/sockets/recorder.py", "loadtests/sockets/schedule.py"),
        ("tests/loadtests/test_schedule.py", "tests/loadtests/test_recorder.py"),
    ),
    Group("web", ("loadtests/web/tables.py",), ("tests/loadtests/test_web.py",)),
    Group("window", ("loadtests/window.py",), ("tests/loadtests/window_checks.py",), patched=True),
    Group("objections", ("loadtests/objections.py",), ("tests/loadtests/test_matrix.py",)),
    Group(
        "bench",
        ("lab/experiments/bench/*.py", "lab/experiments/theory.py", "lab/experiments/advise/*.py"),
        ("tests/bench/test_*.py",),
    ),
    Group("ledger", ("lab/clients/request_log.py",), ("tests/faults/test_ledger.py",)),
    Group("flatness", ("lab/metrics/trend.py",), ("tests/faults/test_flatness.py",)),
    Group(
        "scorecard",
        (
            "lab/experiments/faults/scorecard.py",
            "lab/experiments/faults/fault.py",
            "lab/experiments/faults/kinds/crowd.py",
        ),
        ("tests/faults/test_scorecard.py", "tests/faults/test_mechanisms.py", "tests/faults/test_stamps.py"),
    ),
    Group(
        "mechanisms",
        tuple(
            f"lab/experiments/faults/{name}.py"
            for name in [
                "kinds/drain",
                "kinds/kill",
                "kinds/limits",
                "kinds/network",
                "kinds/nothing",
                "kinds/pause",
                "kinds/pressure",
                "kinds/starve",
                "kinds/worker",
                "process_scripts",
            ]
        ),
        ("tests/faults/test_mechanisms.py",),
    ),
    Group("soak", ("lab/experiments/soak.py",), ("tests/faults/test_soak_figures.py",)),
    Group("soak_clients", ("lab/clients/soak_traffic.py",), ("tests/faults/test_soak_clients.py",)),
    Group("faults_command", ("lab/cli/commands/faults.py",), ("tests/faults/test_command.py",)),
    Group(
        "watch",
        ("lab/experiments/faults/probe_reader.py", "lab/experiments/faults/under_load.py"),
        ("tests/faults/test_around.py", "tests/faults/test_watch.py"),
    ),
    Group(
        "instruments",
        ("lab/clients/latency_probe.py", "lab/clients/slow_clients.py"),
        ("tests/faults/test_instruments.py",),
    ),
    Group(
        "on_request",
        ("lab/experiments/faults/remote_requests.py", "lab/load/timeline.py"),
        ("tests/faults/test_on_request.py", "tests/faults/test_stamps.py"),
    ),
    Group(
        "faults_report",
        ("lab/report/faults_text.py", "lab/report/faults_page.py"),
        ("tests/faults/test_report_figures.py",),
    ),
    Group(
        "protocol",
        ("services/protocol/*.py", "services/serving/log.py"),
        tuple(
            f"tests/protocol/test_{name}.py"
            for name in [
                "command",
                "requests",
                "services",
                "datagrams",
                "transactions",
                "strangers",
                "limits",
                "address",
                "clients",
                "page",
            ]
        ),
    ),
    Group(
        "oracle",
        ("fuzz/oracle.py", "fuzz/live.py", "lab/clients/reference.py"),
        tuple(
            f"tests/protocol/test_{name}.py"
            for name in [
                "reference",
                "oracles",
                "transactions",
                "strangers",
                "properties",
            ]
        ),
    ),
    Group(
        "doctor",
        ("lab/servers/doctor.py", "lab/servers/readiness.py"),
        ("tests/lab/test_doctor.py", "tests/lab/test_readiness.py"),
    ),
    Group(
        "catalogue",
        ("lab/servers/compose_file.py", "lab/servers/catalogue.py"),
        ("tests/lab/test_compose.py", "tests/lab/test_catalogue.py"),
    ),
    Group("builds", ("lab/servers/docker/build_progress.py",), ("tests/lab/test_build_progress.py",)),
    Group(
        "engine",
        ("lab/engine/client.py", "lab/engine/probe.py", "lab/engine/policy.py", "lab/engine/command.py"),
        ("tests/lab/test_client_settings.py", "tests/lab/test_engine.py"),
    ),
)
