"""docs/http-servers.md: what servers make of the cases of RFC 9110 and RFC 9112.

    python -m tools.docs.http_servers            write the page from the recording
    python -m tools.docs.http_servers --record   ask the servers, in containers of a separate lab, and write both

The recording has two parts: an observation for each case (docs/data/http-servers.json), and the tests of the suite that
each server fails (tests/conformance/http_differences.json), which the suite then expects.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue, Model
from tests.support.http_cases import CASES
from tests.support.http_observe import describe_right

PAGE = ROOT / "docs" / "http-servers.md"
DATA = ROOT / "docs" / "data" / "http-servers.json"
DIFFERENCES = ROOT / "tests" / "conformance" / "http_differences.json"

PROFILE = "http"
# Every model of ours has the same protocol core, so one stands for all.
OURS = "asyncio_protocol"
_PROJECT = "http-servers"

_HEAD = """# What HTTP servers make of the RFCs

Each server gets {cases} requests, named after the section of RFC 9110 or RFC 9112 that decides about them. A second
request follows each of them, and shows where the server thinks that the first one ends. If a proxy and a server
disagree about that, an attacker can turn the bytes of one client into a request of another (request smuggling).

Recorded on {date} with {versions}.
The servers run with the settings of `services/peers/http_server.sh`. `make docs` writes this page from
`docs/data/http-servers.json`; `python -m tools.docs.http_servers --record` repeats the requests. To test your own
server: `lab check --target http=http://127.0.0.1:8000 --rfc`.

Not every difference matters in practice. A server behind a proxy may rely on the proxy to refuse malformed requests.
Closing the connection with `Connection: close` is correct in every case.

## Summary

*as the RFC says*: number of {cases} cases. *lenient*: answers a request that the RFC says to refuse, or continues to
read after it. *strict*: refuses a request that the RFC allows. *silent*: sends no reply within 3 s, and keeps the
connection.

"""


def record() -> None:
    """Ask all servers, and write the recording."""
    catalogue = Catalogue.load()
    names = [model.name for model in catalogue.models if model.profile == PROFILE]
    DIFFERENCES.write_text("{}\n", encoding="utf-8")
    try:
        _lab("up", OURS, *names)
        rows = [row for name in (OURS, *names) for row in _observe(name)]
        suite = _lab("check", *names, "--json", check=False)
        findings = json.loads(suite)["findings"]
    finally:
        _lab("down")
    differing: dict[str, list[str]] = {name: [] for name in names}
    for finding in findings:
        if finding["outcome"] in ("failed", "error"):
            differing[finding["model"]].append(shorten(finding["name"], finding["model"]))
    DIFFERENCES.write_text(json.dumps(differing, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        seen.setdefault(row["server"], {})[row["case"]] = {"right": row["right"], "seen": row["seen"]}
    date = datetime.now(UTC).date().isoformat()
    content = {"date": date, "versions": _find_versions(catalogue, names), "seen": seen}
    DATA.write_text(json.dumps(content, indent=0, separators=(",", ":")) + "\n", encoding="utf-8")


def shorten(name: str, model: str) -> str:
    """Return a test's name without its file and its model, as tests/conformance/conftest.py looks it up."""
    return name.rpartition("::")[2].partition("@")[0].replace(f"{model}-", "", 1)


def render(content: Mapping[str, Any]) -> str:
    """Return the page."""
    seen: Mapping[str, Mapping[str, Mapping[str, Any]]] = content["seen"]
    versions = ", ".join(content["versions"])
    cases = [case for case in CASES if not case.ours]
    parts = [_HEAD.format(cases=len(cases), date=content["date"], versions=versions)]
    parts.append("| server | as the RFC says | lenient | strict | silent |\n|---|---:|---:|---:|---:|\n")
    for server, of_server in seen.items():
        counts = {"right": 0, "lenient": 0, "strict": 0, "silent": 0}
        for case in cases:
            found = of_server[case.name]
            counts[_classify(found, goes_on=case.goes_on)] += 1
        row = [_show(server), *(str(counts[kind]) for kind in counts)]
        parts.append(f"| {' | '.join(row)} |\n")
    parts.append(
        "\n## Case by case\n\nOnly cases in which a server differs.\n\n"
        "| case | RFC | servers that differ |\n|---|---|---|\n"
    )
    for case in cases:
        by_answer: dict[str, list[str]] = {}
        for server, of_server in seen.items():
            if not of_server[case.name]["right"]:
                by_answer.setdefault(of_server[case.name]["seen"], []).append(_show(server))
        if by_answer:
            differing = "; ".join(f"{', '.join(servers)}: *{answer}*" for answer, servers in by_answer.items())
            parts.append(f"| `{case.name}` | {describe_right(case)} | {differing} |\n")
    return "".join(parts)


def _classify(found: Mapping[str, Any], *, goes_on: bool) -> str:
    if found["right"]:
        return "right"
    if found["seen"] == "waits":
        return "silent"
    return "strict" if goes_on else "lenient"


def _show(server: str) -> str:
    return "ours" if server == OURS else server.removeprefix("peer_")


def _lab(*arguments: str, check: bool = True) -> str:
    command = [sys.executable, "-m", "lab", "--backend", "docker", "--project", _PROJECT, *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=check).stdout  # noqa: S603 - the lab's


def _observe(server: str) -> list[dict[str, Any]]:
    command = f"python -m tests.support.http_observe {server}=tcp://{server}:8080"
    return [json.loads(line) for line in _lab("shell", "-c", command).splitlines() if line.startswith("{")]


def _find_versions(catalogue: Catalogue, names: Iterable[str]) -> list[str]:
    """Return the servers' versions, from their locks."""
    found = dict.fromkeys(version for name in names for version in _read_lock(catalogue, catalogue[name]))
    return sorted(found)


def _read_lock(catalogue: Catalogue, model: Model) -> list[str]:
    arguments = catalogue.definitions[model.name]["build"].get("args", {})
    lock = ROOT / "requirements" / "servers" / f"{arguments.get('LOCK', 'none')}.txt"
    wanted = re.split(r"[^a-z0-9]+", lock.with_suffix(".in").read_text().lower()) if "LOCK" in arguments else []
    pairs = re.findall(r"(?m)^([a-z0-9-]+)==([0-9.]+)", lock.read_text())
    return [f"{name} {version}" for name, version in pairs if name in wanted]


def main(arguments: list[str]) -> None:
    """Write the page; record first if asked."""
    if "--record" in arguments:
        record()
    write(json.loads(DATA.read_text(encoding="utf-8")))


def write(content: Mapping[str, Any], path: Path = PAGE) -> None:
    """Write the page of a recording."""
    path.write_text(render(content), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
