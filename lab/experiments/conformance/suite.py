"""Run the conformance suite (`lab check`), and read its results.

pytest runs where the servers can be reached, which may be in a container. So the results come back through its output:
the plugin `lab.experiments.conformance.plugin` prints a line for each test.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from lab.base import interrupts
from lab.base.environ import ENV_TARGETS
from lab.base.errors import LabError
from lab.base.messages import build
from lab.base.paths import ROOT
from lab.experiments.conformance import results
from lab.experiments.conformance.results import MARK
from lab.load.external_server import check_reachable, parse_target
from lab.servers.backend import Backend, Completed
from services.protocol import SERVICES, Address, Transport, is_offered

SUITE = "tests/conformance"
# Other installed plugins are disabled: they cost each process a second, and could change results.
PLUGIN = ["--disable-plugin-autoload", "-p", "xdist", "-p", "timeout"]
PLUGIN += ["-p", "lab.experiments.conformance.plugin", "--quiet", "--no-header"]
# Most tests wait for a clock, so several models can be tested at the same time. The tests of one model stay in one
# process (the suite groups them), since some models serve one client at a time.
PARALLEL = ["--numprocesses", "4", "--dist", "loadgroup"]
# Exit codes of pytest: 0 all passed, 1 some failed. With any other, no result is complete.
_TESTED = (0, 1)


# WebSocket is spoken at the address of http: `websocket=ws://host:port`, or any address that http may have.
_WEBSOCKET = re.compile("^websocket=(?:ws(s?)://)?")


def _as_http(match: re.Match[str]) -> str:
    return "http=" if match[1] is None else f"http=http{match[1]}://"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one test.

    Args:
        name: Its id in pytest.
        model, transport: Empty if the id has none.
        outcome: passed, failed, skipped, xfailed (a declared limit held), or error (in set-up or tear-down).
        detail: The reason, unless it passed.
    """

    name: str
    model: str
    transport: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class SuiteReport:
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> list[Finding]:
        return [item for item in self.findings if item.outcome in ("failed", "error")]

    @property
    def holds(self) -> bool:
        """Whether at least one test passed and none failed."""
        return not self.failures and any(item.outcome == "passed" for item in self.findings)

    def as_json(self) -> dict[str, object]:
        return {"holds": self.holds, "findings": [asdict(item) for item in self.findings]}

    def count(self, models: Iterable[str]) -> dict[str, results.ModelResult]:
        """Return the counts of each model, and the names of its failures."""
        outcomes = Counter((item.model, item.outcome) for item in self.findings)
        return {
            model: results.ModelResult(
                passed=outcomes[model, "passed"],
                failed=outcomes[model, "failed"] + outcomes[model, "error"],
                xfailed=outcomes[model, "xfailed"],
                failures=tuple(item.name for item in self.failures if item.model == model),
            )
            for model in models
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and rows of a table with a row per model and a column per transport."""
        transports = [item for item in Transport if any(item == each.transport for each in self.findings)]
        models = dict.fromkeys(item.model for item in self.findings if item.model)
        rows = [[model, *(_count(self.findings, model, transport) for transport in transports)] for model in models]
        return ["model", *transports], rows

    def summary(self) -> str:
        """Return the counts of all outcomes in one line."""
        counts = Counter(item.outcome for item in self.findings)
        names = {"xfailed": "declared limits held"}
        parts = [
            f"{counts[key]} {names.get(key, key)}"
            for key in ("passed", "failed", "error", "xfailed", "skipped")
            if counts[key]
        ]
        return ", ".join(parts) if parts else "nothing was tested"


def check_models(backend: Backend, models: Sequence[str], *, progress: bool) -> SuiteReport:
    """Check models of the catalogue. If none of them is running, start them, and take the lab down afterwards.

    Args:
        progress: Print the models to stderr first.

    Raises:
        LabError: Only some of the models are running, or the suite could not run.
    """
    running = {state.model for state in backend.state() if state.state == "running"}
    if absent := [model for model in models if model not in running]:
        if running:
            raise LabError(f"{', '.join(absent)} not running: `lab up {' '.join(absent)}` starts them")
        with interrupts.sure(backend.down):
            backend.up(models)
            return check_models(backend, models, progress=progress)
    if progress:
        print(f"lab: checking {', '.join(models)} ...", file=sys.stderr, flush=True)
    rows = []
    for state in backend.state():
        if state.model in models:
            model = backend.catalogue[state.model]
            rows.append(state.as_json() | {"limits": dict(model.limits), "rfc_only": model.rfc_only})
    # The tests of one model run in one process, so more processes would be idle.
    arguments = [SUITE, *PLUGIN, *(PARALLEL if len(models) > 1 else [])]
    arguments += ["--network"] if backend.in_containers else []
    return read_report(
        backend.helpers.run_service("tests", arguments, environ={ENV_TARGETS: json.dumps(rows)}, capture=True), models
    )


def check_external(targets: Iterable[str], *, rfc_only: bool, progress: bool) -> SuiteReport:
    """Check an external server.

    Args:
        targets: SERVICE=URL, at least one.
        rfc_only: Check only what RFCs and RESP require, not this lab's additions.

    Raises:
        LabError: A target is invalid or does not listen, or the suite could not run.
    """
    arguments = ["--rfc"] if rfc_only else []
    found: list[tuple[str, Address]] = []
    for target in targets:
        parsed = parse_target(_WEBSOCKET.sub(_as_http, target))
        service, address = parsed.service, parsed.address
        if parsed.path not in ("", "/"):
            raise LabError(f"--target {target!r}: the suite chooses the paths itself: omit {parsed.path}")
        if service not in SERVICES:
            raise LabError(f"--target {target!r} is not SERVICE=URL with one of {', '.join(SERVICES)}")
        if not is_offered(service, address.transport):
            raise LabError(f"--target {target!r}: there are no tests of {service} over {address.transport}")
        found.append((service, address))
        name = "websocket" if _WEBSOCKET.match(target) else service
        arguments += ["--target", f"{name}={address}"]
    for service, address in found:
        check_reachable(service, address)
    if progress:
        print("lab: checking ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", SUITE, *PLUGIN, *arguments]
    done = subprocess.run(  # noqa: S603 - our own suite
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    return read_report(done, ["target"])


def read_report(done: Completed, models: Iterable[str]) -> SuiteReport:
    """Read the lines of the plugin from the output of pytest.

    Raises:
        LabError: pytest could not run the tests; with the end of its output.
    """
    known = list(models)
    lines = done.stdout.splitlines()
    findings = [_read_finding(json.loads(line.removeprefix(MARK)), known) for line in lines if line.startswith(MARK)]
    if done.returncode not in _TESTED:
        said = [line for line in [*lines, *done.stderr.splitlines()] if line.strip() and not line.startswith(MARK)]
        raise LabError("\n  ".join([f"the suite could not run (pytest's exit code {done.returncode}):", *said[-15:]]))
    # Parallel tests finish in any order; a table has the order of the catalogue.
    return SuiteReport(tuple(sorted(findings, key=lambda item: known.index(item.model) if item.model else len(known))))


def _read_finding(fields: dict[str, str], models: Sequence[str]) -> Finding:
    # The id of a parameter names model, service and transport: `test_x[asyncio_streams-echo-tcp-...]`.
    # pytest-xdist appends the group: `...]@asyncio_streams`.
    match = re.search(r"\[(.*)\](@\S*)?$", fields["name"])
    words = match[1].split("-") if match else []
    return Finding(
        name=fields["name"],
        model=next((word for word in words if word in models), ""),
        transport=next((word for word in words if word in list(Transport)), ""),
        outcome=fields["outcome"],
        detail=fields["detail"],
    )


def _count(findings: Iterable[Finding], model: str, transport: str) -> str:
    counts = Counter(item.outcome for item in findings if (item.model, item.transport) == (model, transport))
    failed = counts["failed"] + counts["error"]
    parts = [f"{counts['passed']} pass"] if counts["passed"] else []
    parts += [f"{failed} FAIL"] if failed else []
    parts += [f"{counts['xfailed']} limit"] if counts["xfailed"] else []
    parts += [f"{counts['skipped']} skip"] if counts["skipped"] else []
    return ", ".join(parts) or "-"


# Several times the duration of the suite on two busy cores.
_SUITE_TIMEOUT = 240


def check_in_subprocess(backend: Backend, models: Sequence[str]) -> dict[str, results.ModelResult]:
    """Check running models with `lab check` in a subprocess, so that a suite that hangs can be ended.

    Raises:
        LabError: It returned no result, or not in time.
    """
    command = [
        sys.executable,
        "-m",
        "lab",
        "--backend",
        backend.name,
        "--project",
        backend.project,
        "check",
        "--json",
    ]
    with subprocess.Popen(  # noqa: S603  # the lab's own command line
        [*command, *models],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=_SUITE_TIMEOUT)
        except BaseException as error:
            # SIGTERM lets it end its own child processes.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"the conformance suite took longer than {_SUITE_TIMEOUT} s and was stopped") from None
            raise
    try:
        return build(SuiteReport, json.loads(stdout)).count(models)
    except ValueError:
        # `lab check` has printed the reason, which may take several lines.
        said = stderr.strip().removeprefix("lab: ") or f"lab check returned no result (exit code {process.returncode})"
        raise LabError(said) from None
