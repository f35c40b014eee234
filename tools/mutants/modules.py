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
        (
            "lab/load/measurement.py",
            "lab/load/measure.py",
            "lab/metrics/verdict.py",
            "loadtests/sockets/histogram.py",
            "loadtests/contract.py",
            "loadtests/parts.py",
            "loadtests/buckets.py",
        ),
        (
            "tests/lab/load/test_measurement.py",
            "tests/loadtests/test_contract.py",
            "tests/lab/metrics/test_verdict.py",
            "tests/loadtests/sockets/test_histogram.py",
        ),
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
            "lab/servers/affinity.py",
        ),
        (
            "tests/lab/metrics/test_meters.py",
            "tests/lab/metrics/test_socket_owner.py",
            "tests/lab/load/test_cores.py",
        ),
    ),
    Group("telemetry", ("lab/load/telemetry.py", "lab/load/messages.py"), ("tests/lab/load/test_telemetry.py",)),
    Group("thresholds", ("lab/load/thresholds.py",), ("tests/lab/load/test_thresholds.py",)),
    Group("store", ("lab/experiments/store.py",), ("tests/lab/experiments/test_store.py",)),
    Group("environment", ("lab/experiments/environment.py",), ("tests/lab/experiments/test_environment.py",)),
    Group(
        "check",
        ("lab/experiments/conformance/suite.py", "lab/experiments/conformance/plugin.py"),
        ("tests/lab/experiments/conformance/test_suite.py",),
    ),
    Group("check_command", ("lab/cli/commands/check.py",), ("tests/lab/cli/test_check.py",)),
    Group(
        "output",
        ("lab/base/output.py", "lab/base/interrupts.py"),
        ("tests/lab/base/test_output.py", "tests/lab/base/test_interrupts.py", "tests/lab/cli/test_faults.py"),
    ),
    Group(
        "load",
        ("loadtests/sockets/recorder.py", "loadtests/sockets/schedule.py", "loadtests/shapes.py"),
        (
            "tests/loadtests/sockets/test_schedule.py",
            "tests/loadtests/sockets/test_recorder.py",
            "tests/loadtests/test_shapes.py",
        ),
    ),
    Group(
        "web",
        (
            *(f"loadtests/web/{name}.py" for name in ["tables", "live", "form", "access", "faults"]),
            "loadtests/course.py",
            "lab/load/origins.py",
        ),
        (
            *(f"tests/loadtests/web/test_{name}.py" for name in ["web", "live", "form", "access", "faults"]),
            "tests/loadtests/test_course.py",
        ),
    ),
    Group("cells", ("lab/report/cells.py",), ("tests/lab/report/test_cells.py",)),
    Group(
        "window",
        ("loadtests/window.py", "loadtests/rate_shares.py", "loadtests/joining.py"),
        ("tests/loadtests/window_checks.py",),
        patched=True,
    ),
    Group("objections", ("loadtests/objections.py",), ("tests/loadtests/test_matrix.py",)),
    Group(
        "bench",
        (
            "lab/experiments/bench/*.py",
            "lab/experiments/theory.py",
            "lab/experiments/advise/*.py",
            "lab/metrics/estimates.py",
            "lab/cli/commands/bench.py",
            "lab/cli/commands/compare.py",
            "lab/cli/commands/advise.py",
        ),
        (
            "tests/lab/experiments/bench/test_[!r]*.py",
            "tests/lab/experiments/bench/test_runner*.py",
            "tests/lab/experiments/advise/test_*.py",
            "tests/lab/experiments/test_theory.py",
            "tests/lab/metrics/test_estimates.py",
        ),
    ),
    Group("request log", ("lab/clients/request_log.py",), ("tests/lab/clients/test_request_log.py",)),
    Group("flatness", ("lab/metrics/trend.py",), ("tests/lab/metrics/test_trend.py",)),
    Group(
        "scorecard",
        (
            "lab/experiments/faults/scorecard.py",
            "lab/experiments/faults/judge.py",
            "lab/experiments/faults/fault.py",
            "lab/experiments/faults/kinds/slow_clients.py",
            "lab/experiments/faults/ping_cost.py",
        ),
        (
            "tests/lab/experiments/faults/test_scorecard.py",
            "tests/lab/experiments/faults/test_kinds.py",
            "tests/lab/experiments/faults/test_intervals.py",
        ),
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
        ("tests/lab/experiments/faults/test_kinds.py",),
    ),
    Group(
        "soak", ("lab/experiments/soak.py", "lab/cli/commands/soak.py"), ("tests/lab/experiments/test_soak_figures.py",)
    ),
    Group(
        "soak_clients",
        ("lab/clients/soak_traffic.py", "lab/clients/soak_http.py"),
        ("tests/lab/clients/test_soak_traffic.py",),
    ),
    Group("faults_command", ("lab/cli/commands/faults.py",), ("tests/lab/cli/test_faults.py",)),
    Group(
        "watch",
        ("lab/experiments/faults/probe_reader.py", "lab/experiments/faults/under_load.py"),
        ("tests/lab/experiments/faults/test_under_load.py", "tests/lab/experiments/faults/test_probe_reader.py"),
    ),
    Group(
        "instruments",
        ("lab/clients/latency_probe.py", "lab/clients/slow_clients.py"),
        ("tests/lab/clients/test_latency_probe.py",),
    ),
    Group(
        "on_request",
        ("lab/experiments/faults/remote_requests.py", "lab/load/timeline.py"),
        ("tests/lab/experiments/faults/test_remote_requests.py", "tests/lab/experiments/faults/test_intervals.py"),
    ),
    Group(
        "faults_report",
        ("lab/report/faults_text.py", "lab/report/faults_page.py", "lab/report/fault_recovery.py"),
        ("tests/lab/report/test_faults_text.py", "tests/lab/report/test_faults_page.py"),
    ),
    Group(
        "bench_answer",
        ("lab/report/bench_answer.py",),
        ("tests/lab/report/test_bench_answer.py",),
    ),
    Group(
        "bench_report",
        (
            "lab/report/bench_text.py",
            "lab/report/bench_charts.py",
            "lab/report/bench_page.py",
            "lab/report/bench_export.py",
            "lab/report/compare_page.py",
            "lab/report/markdown.py",
        ),
        (
            "tests/lab/report/test_bench_answer.py",
            "tests/lab/report/test_bench_text.py",
            "tests/lab/report/test_chart_data.py",
            "tests/lab/report/test_other_pages.py",
            "tests/lab/experiments/bench/test_findings.py",
            "tests/lab/experiments/test_theory.py",
        ),
    ),
    Group("advise_report", ("lab/report/advise_text.py",), ("tests/lab/experiments/advise/test_model.py",)),
    Group(
        "load_report",
        (
            "lab/report/measurement_charts.py",
            "lab/report/soak_page.py",
            "lab/report/load_page.py",
            "lab/report/terminal.py",
        ),
        (
            "tests/lab/report/test_chart_data.py",
            "tests/lab/report/test_demo_page.py",
            "tests/lab/report/test_other_pages.py",
            "tests/lab/report/test_rows.py",
        ),
    ),
    Group("tables", ("lab/report/tables.py",), ("tests/lab/report/test_tables.py",)),
    Group(
        "options",
        ("lab/cli/params.py", "lab/base/ui_port.py"),
        ("tests/lab/cli/test_params.py", "tests/lab/base/test_ui_port.py"),
    ),
    Group("workloads", ("lab/load/workloads.py",), ("tests/lab/load/test_workloads.py",)),
    Group("generator", ("lab/load/generator.py",), ("tests/lab/load/test_generator.py",)),
    Group(
        "load_parts",
        ("lab/load/exports.py", "lab/load/selection.py", "lab/load/http_exchanges.py"),
        ("tests/lab/cli/test_load.py", "tests/lab/load/test_measurement.py", "tests/lab/load/test_workloads.py"),
    ),
    Group(
        "locustfiles",
        ("lab/load/locustfiles.py", "lab/load/gallery.py", "lab/load/web_ui.py"),
        (
            "tests/lab/load/test_locustfiles.py",
            "tests/lab/load/test_web_ui_settings.py",
            "tests/lab/cli/test_load_gallery.py",
        ),
    ),
    Group("backend", ("lab/servers/backend.py",), ("tests/lab/servers/test_selection.py",)),
    Group("units", ("lab/base/units.py",), ("tests/lab/test_units.py", "tests/lab/report/charts/test_scale.py")),
    Group(
        "results",
        ("lab/experiments/conformance/results.py",),
        ("tests/lab/experiments/conformance/test_results.py",),
    ),
    Group("published", ("lab/experiments/published.py",), ("tests/lab/experiments/test_published.py",)),
    Group(
        "xray",
        (
            "lab/experiments/xray/analysis.py",
            "lab/experiments/xray/sentences.py",
            "lab/experiments/xray/recording.py",
            "lab/report/xray_text.py",
        ),
        (
            "tests/lab/experiments/xray/test_analysis.py",
            "tests/lab/experiments/xray/test_lanes.py",
            "tests/lab/experiments/xray/test_recording.py",
            "tests/lab/experiments/xray/test_sentences.py",
            "tests/lab/report/test_xray_text.py",
        ),
    ),
    Group(
        "xray_pictures",
        (
            "lab/report/xray_svg.py",
            "lab/report/xray_page.py",
            "lab/report/xray_trace.py",
            "lab/experiments/xray/calls.py",
        ),
        ("tests/lab/report/test_xray_page.py",),
    ),
    Group(
        "xray_costs",
        (
            "lab/experiments/xray/count.py",
            "lab/experiments/xray/strace.py",
            "lab/experiments/xray/switches.py",
            "lab/report/xray_costs.py",
        ),
        ("tests/lab/experiments/xray/test_count.py", "tests/lab/experiments/xray/test_strace.py"),
    ),
    Group(
        "xray_exchanges",
        ("lab/experiments/xray/exchanges.py",),
        ("tests/lab/experiments/xray/test_exchanges.py",),
    ),
    Group(
        "demo",
        ("lab/experiments/demo.py", "lab/experiments/records.py"),
        ("tests/lab/experiments/test_demo.py",),
    ),
    Group(
        "demo_report",
        ("lab/cli/commands/demo.py", "lab/report/demo_files.py", "lab/report/demo_page.py", "lab/report/html.py"),
        (
            "tests/lab/cli/test_demo.py",
            "tests/lab/cli/test_load.py",
            "tests/lab/report/test_demo_page.py",
            "tests/lab/report/test_rows.py",
        ),
    ),
    Group(
        "replies",
        tuple(f"loadtests/sockets/{name}.py" for name in ["codec", "http", "websocket"]),
        tuple(f"tests/loadtests/sockets/test_{name}.py" for name in ["codec", "http", "websocket"]),
    ),
    Group(
        "addresses",
        tuple(f"loadtests/sockets/{name}.py" for name in ["addresses", "failures", "errors"]),
        tuple(f"tests/loadtests/sockets/test_{name}.py" for name in ["addresses", "failures", "package"]),
    ),
    Group(
        "exchange",
        ("loadtests/sockets/exchange.py",),
        ("tests/loadtests/sockets/test_exchange.py", "tests/loadtests/sockets/test_codec.py"),
    ),
    Group(
        "exchanges",
        tuple(
            f"loadtests/sockets/engine/{name}.py"
            for name in ["learned", "exchanges", "datagrams", "http", "destination"]
        ),
        ("tests/loadtests/sockets/engine/exchange_checks.py",),
        patched=True,
    ),
    Group("targets", ("loadtests/targets.py",), ("tests/loadtests/test_targets.py",)),
    Group(
        "presets",
        ("lab/load/presets.py",),
        ("tests/lab/load/test_presets.py",),
    ),
    Group(
        "charts",
        tuple(f"lab/report/charts/{name}.py" for name in ["scale", "intervals", "lines", "scatter", "chart"]),
        ("tests/lab/report/charts/test_scale.py", "tests/lab/report/charts/test_charts.py"),
    ),
    Group(
        "protocol",
        ("services/protocol/*.py", "services/serving/log.py"),
        (
            "tests/services/serving/test_recorder.py",
            *(
                f"tests/services/protocol/test_{name}.py"
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
    ),
    Group(
        "http",
        ("services/protocol/http/*.py",),
        tuple(
            f"tests/services/protocol/http/test_{name}.py"
            for name in ["strictness", "replies", "statuses", "websocket", "head"]
        ),
    ),
    Group("call", ("lab/clients/call.py",), ("tests/lab/clients/test_call.py",)),
    Group("grammar", ("fuzz/http_grammar.py",), ("tests/services/protocol/http/test_grammar.py",)),
    Group(
        "http_oracle",
        ("fuzz/http_oracle.py", "fuzz/http_replies.py", "fuzz/http_parsers.py", "fuzz/http_differential.py"),
        tuple(f"tests/services/protocol/http/test_{name}.py" for name in ["oracles", "oracle_parts", "differential"]),
    ),
    Group(
        "oracle",
        ("fuzz/oracle.py", "fuzz/live.py", "lab/clients/reference.py"),
        tuple(
            f"tests/services/protocol/test_{name}.py"
            for name in [
                "reference",
                "oracles",
                "oracle_parts",
                "transactions",
                "strangers",
                "properties",
            ]
        ),
    ),
    Group(
        "doctor",
        ("lab/servers/doctor.py", "lab/servers/readiness.py"),
        ("tests/lab/servers/test_doctor.py", "tests/lab/servers/test_readiness.py"),
    ),
    Group(
        "catalogue",
        ("lab/servers/compose_file.py", "lab/servers/catalogue.py"),
        ("tests/lab/servers/test_compose_file.py", "tests/lab/servers/test_catalogue.py"),
    ),
    Group(
        "messages",
        ("lab/base/messages.py", "lab/servers/helper.py"),
        ("tests/lab/base/test_messages.py", "tests/lab/servers/test_helper.py"),
    ),
    Group("builds", ("lab/servers/docker/build_progress.py",), ("tests/lab/servers/docker/test_build_progress.py",)),
    Group(
        "docker",
        tuple(
            f"lab/servers/docker/{name}.py"
            for name in [
                "cleanup",
                "command",
                "compose",
                "describe",
                "helpers",
                "images",
                "model_container",
            ]
        ),
        (
            "tests/lab/servers/test_backends.py",
            "tests/lab/servers/test_children.py",
            *(
                f"tests/lab/servers/docker/test_{name}.py"
                for name in ["build_progress", "client", "command", "helpers", "images", "model_container", "states"]
            ),
        ),
    ),
    Group(
        "serving",
        tuple(
            f"services/serving/{name}.py"
            for name in [
                "idle",
                "states",
                "callbacks",
                "timers",
                "clock",
                "coroutines",
                "accepting",
                "closing",
                "isolation",
                "listeners",
                "blocking",
                "socketservers",
            ]
        ),
        (
            *(
                f"tests/services/serving/test_{name}.py"
                for name in [
                    "blocking",
                    "clock",
                    "accepting",
                    "idle_times",
                    "isolation",
                    "listeners",
                    "socketservers",
                    "timers",
                ]
            ),
            *(f"tests/services/models/test_{name}.py" for name in ["callbacks", "closing", "idle_watch"]),
        ),
    ),
    Group(
        "applications",
        ("services/apps/routes.py", "services/apps/asgi.py", "services/apps/wsgi.py"),
        ("tests/services/apps/test_applications.py",),
    ),
    Group(
        "certificates",
        ("lab/servers/certificates.py", "lab/servers/ca.py"),
        ("tests/lab/servers/test_certificates.py",),
    ),
    Group(
        "tour",
        tuple(f"lab/tour/{name}.py" for name in ["normalise", "dialogue", "session", "recorder", "runner", "registry"]),
        tuple(f"tests/lab/tour/test_{name}.py" for name in ["tour", "session", "runner"]),
    ),
    Group(
        "servers",
        tuple(f"lab/servers/{name}.py" for name in ["open", "shell", "throttle", "children", "process_helpers"]),
        (
            "tests/repo/test_catalogue.py",
            *(
                f"tests/lab/servers/test_{name}.py"
                for name in ["open", "shell", "throttle", "children", "process_helpers"]
            ),
        ),
    ),
    Group("scaffold", ("lab/servers/scaffold.py",), ("tests/lab/servers/test_scaffold.py",)),
    Group(
        "engine",
        ("lab/engine/client.py", "lab/engine/probe.py", "lab/engine/policy.py", "lab/engine/command.py"),
        ("tests/lab/engine/test_client.py", "tests/lab/engine/test_engine.py"),
    ),
    Group(
        "engine_parts",
        tuple(f"lab/engine/{name}.py" for name in ["__main__", "daemon", "provide"]),
        tuple(f"tests/lab/engine/test_{name}.py" for name in ["daemon", "engine", "provide"]),
    ),
)
