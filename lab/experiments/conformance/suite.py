"""`lab check`: run the conformance suite, and make a table of what it found.

pytest runs where the servers can be reached, which may be in a container, so its findings come back through its output:
the plugin `lab.experiments.conformance.plugin` prints a line for each.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.conformance import results
from lab.experiments.conformance.plugin import MARK
from lab.load.external_server import check_reachable, parse_target
from lab.servers.backend import Backend, Completed
from services.protocol import SERVICES, Address, Transport, is_offered

SUITE = "tests/conformance"
# What else is installed for pytest has no part in it: it costs each process a second, and could change what is found.
PLUGIN = ["--disable-plugin-autoload", "-p", "xdist", "-p", "timeout"]
PLUGIN += ["-p", "lab.experiments.conformance.plugin", "--quiet", "--no-header"]
# Most tests wait for a clock, so several models at a time cost no accuracy. Those of one model stay together (the suite
# groups them), since a server that serves one client at a time must not get two.
PARALLEL = ["--numprocesses", "4", "--dist", "loadgroup"]
# pytest: 0 all passed, 1 some failed; the rest means that it did not get to test.
_TESTED = (0, 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One test of the suite.

    Args:
        name: its id in pytest.
        model, transport: what it was about; empty if its id does not say.
        outcome: passed, failed, skipped, xfailed (a declared limit held), or error (before or after the test).
        detail: why, unless it passed.
    """

    name: str
    model: str
    transport: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of the suite has found."""

    findings: tuple[Finding, ...]

    @property
    def failures(self) -> list[Finding]:
        """What did not hold."""
        return [item for item in self.findings if item.outcome in ("failed", "error")]

    @property
    def holds(self) -> bool:
        """Whether all held: something was tested, and nothing failed."""
        return not self.failures and any(item.outcome == "passed" for item in self.findings)

    def as_json(self) -> dict[str, object]:
        """For a script."""
        return {"holds": self.holds, "findings": [asdict(item) for item in self.findings]}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """A row a model, a column a transport."""
        transports = [item for item in Transport if any(item == each.transport for each in self.findings)]
        models = dict.fromkeys(item.model for item in self.findings if item.model)
        rows = [[model, *(_count(self.findings, model, transport) for transport in transports)] for model in models]
        return ["model", *transports], rows

    def summary(self) -> str:
        """One line."""
        counts = Counter(item.outcome for item in self.findings)
        names = {"xfailed": "declared limits held"}
        parts = [
            f"{counts[key]} {names.get(key, key)}"
            for key in ("passed", "failed", "error", "xfailed", "skipped")
            if counts[key]
        ]
        return ", ".join(parts) if parts else "nothing was tested"


def check_models(backend: Backend, models: Sequence[str], *, progress: bool) -> Report:
    """Check models of the catalogue.

    Args:
        backend: where. If none of the models runs there, they are started, and the lab is taken down afterwards.
        progress: say on stderr how far it has got.

    Raises:
        LabError: some run and some do not, or the suite could not be run.
    """
    running = {state.model for state in backend.state() if state.state == "running"}
    if absent := [model for model in models if model not in running]:
        if running:
            raise LabError(f"{', '.join(absent)} not running: `lab up {' '.join(absent)}` starts what is missing")
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
    # One model is one group: more processes would only collect.
    arguments = [SUITE, *PLUGIN, *(PARALLEL if len(models) > 1 else [])]
    arguments += ["--network"] if backend.name == "docker" else []
    return read_report(
        backend.run_service("tests", arguments, environ={"LAB_TARGETS": json.dumps(rows)}, capture=True), models
    )


def check_foreign(targets: Iterable[str], *, rfc_only: bool, progress: bool) -> Report:
    """Check a server that is not ours.

    Args:
        targets: SERVICE=URL, one or more.
        rfc_only: hold it to what RFCs and RESP say, and not to what this lab has added.

    Raises:
        LabError: a target that is none, or where nobody listens, or the suite could not be run.
    """
    arguments = ["--rfc"] if rfc_only else []
    found: list[tuple[str, Address]] = []
    for target in targets:
        service, address = parse_target(target)
        if service not in SERVICES:
            raise LabError(f"--target {target!r} is not SERVICE=URL with one of {', '.join(SERVICES)}")
        if not is_offered(service, address.transport):
            raise LabError(f"--target {target!r}: there are no tests of {service} over {address.transport}")
        found.append((service, address))
        arguments += ["--target", f"{service}={address}"]
    for service, address in found:
        check_reachable(service, address)
    if progress:
        print("lab: checking ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", SUITE, *PLUGIN, *arguments]
    done = subprocess.run(  # noqa: S603 - our own suite
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    return read_report(done, ["target"])


def read_report(done: Completed, models: Iterable[str]) -> Report:
    """Read what the plugin has printed.

    Raises:
        LabError: pytest could not test; with the end of what it said.
    """
    known = list(models)
    lines = done.stdout.splitlines()
    findings = [_read_finding(json.loads(line.removeprefix(MARK)), known) for line in lines if line.startswith(MARK)]
    if done.returncode not in _TESTED:
        said = [line for line in [*lines, *done.stderr.splitlines()] if line.strip() and not line.startswith(MARK)]
        raise LabError(
            "\n  ".join([f"the suite could not be run (pytest's exit code {done.returncode}):", *said[-15:]])
        )
    # In parallel they come as they end; a table has the catalogue's order.
    return Report(tuple(sorted(findings, key=lambda item: known.index(item.model) if item.model else len(known))))


def _read_finding(fields: dict[str, str], models: Sequence[str]) -> Finding:
    # `test_x[asyncio_streams-echo-tcp-...]`: the id of a parameter names what the test is about.
    # pytest-xdist adds the group: `...]@asyncio_streams`.
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


# Several times what the suite takes on two busy cores.
_CHECK_SECONDS = 240


def check(backend: Backend, models: Sequence[str]) -> dict[str, results.Check]:
    """Hold the running models to the conformance suite, in a process of its own: one that hangs must not hang the demo.

    Raises:
        LabError: it gave no result, or none in time.
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
            stdout, stderr = process.communicate(timeout=_CHECK_SECONDS)
        except BaseException as error:
            # SIGTERM lets it take its own children along.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"the conformance suite took longer than {_CHECK_SECONDS} s and was ended") from None
            raise
    try:
        return count_checks(json.loads(stdout)["findings"], models)
    except (ValueError, KeyError, TypeError):
        # `lab check` says itself what was wrong, in as many lines as that takes.
        said = stderr.strip().removeprefix("lab: ") or f"lab check gave no result (exit code {process.returncode})"
        raise LabError(said) from None


def count_checks(findings: Sequence[Mapping[str, str]], models: Sequence[str]) -> dict[str, results.Check]:
    """The findings of `lab check --json`, counted for each model."""
    outcomes = Counter((finding["model"], finding["outcome"]) for finding in findings)
    return {
        model: results.Check(
            passed=outcomes[model, "passed"],
            failed=outcomes[model, "failed"] + outcomes[model, "error"],
            expected_failures=outcomes[model, "xfailed"],
            failures=tuple(
                finding["name"]
                for finding in findings
                if finding["model"] == model and finding["outcome"] in ("failed", "error")
            ),
        )
        for model in models
    }
