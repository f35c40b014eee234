"""A pytest plugin (`-p lab.experiments.conformance.plugin`): prints a line of JSON for each test, which `lab check`
reads.

Between the lines pytest goes on printing what it always does, for the case that it cannot get to the tests at all.
"""

import json

import pytest

MARK = "@lab.experiments.conformance.suite "


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest at the start: of the run, and with xdist of each worker, whose reports the run gets as well."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Printer())


class Printer:
    """Prints what the run has found."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for the set-up, the test itself and the tear-down of each test."""
        if report.when == "call" or report.outcome != "passed":
            _print(report.nodeid, _outcome(report), _detail(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called by pytest for each file: one that cannot be imported is an error, not a test less."""
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
    # The line break before: pytest may be in the middle of a line of dots.
    print(f"\n{MARK}{json.dumps({'name': name, 'outcome': outcome, 'detail': detail})}", flush=True)
