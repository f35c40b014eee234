"""A pytest plugin that prints a line of JSON for each test, for `lab check` (`-p lab.experiments.conformance.plugin`).

pytest's own output stays in between: `lab check` shows it if no test could run.
"""

import json

import pytest

from lab.experiments.conformance.results import MARK


def pytest_configure(config: pytest.Config) -> None:
    """Register the printer, but not in a worker of xdist: the main process gets the reports of all workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Printer())


class Printer:
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a test once: its call, or a set-up or tear-down that did not pass."""
        if report.when == "call" or report.outcome != "passed":
            _print(report.nodeid, _outcome(report), _detail(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print a file that cannot be imported as an error."""
        if report.outcome == "failed":
            _print(report.nodeid, "error", report.longreprtext)


def _outcome(report: pytest.TestReport) -> str:
    if report.outcome == "skipped":
        return "xfailed" if hasattr(report, "wasxfail") else "skipped"
    if report.outcome == "failed" and report.when != "call":
        return "error"
    return report.outcome


def _detail(report: pytest.TestReport) -> str:
    if report.outcome == "skipped":
        if hasattr(report, "wasxfail"):
            return str(report.wasxfail)
        return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else report.longreprtext
    return report.longreprtext


def _print(name: str, outcome: str, detail: str) -> None:
    # Starts on a new line, since pytest may be in the middle of a line of dots.
    print(f"\n{MARK}{json.dumps({'name': name, 'outcome': outcome, 'detail': detail})}", flush=True)
