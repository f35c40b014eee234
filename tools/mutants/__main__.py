"""Plant faults, print which of them no test notices, and fail on a survivor that is not accepted.

    python -m tools.mutants                        every module of modules.py
    python -m tools.mutants lab/metrics/verdict.py         this one (or: every module of the group `bench`)
    python -m tools.mutants --changed --seconds 60 a sample, of the modules that have changed; `make test` does this
    python -m tools.mutants --further bench        further kinds of faults; many are equivalent, and none is accepted
    python -m tools.mutants --accept 'REASON' lab/metrics/verdict.py     accept its survivors; then edit accepted.toml

Exit code: 0 when each survivor is accepted, or nothing was to be tried; 1 when one is not; 2 when the tests themselves
fail.
"""

import argparse
import concurrent.futures
import json
import random
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.servers.children import die_with_lab
from tools.mutants.changed import UnknownChangeError, find_changes
from tools.mutants.faults import find_mutants
from tools.mutants.modules import GROUPS, ROOT, Group
from tools.mutants.session import KILLED, SURVIVED, TIMED_OUT, UNCOVERED, UNFIT

ACCEPTED = Path(__file__).with_name("accepted.toml")
EQUIVALENT = "equivalent"
_PROCESSES = 2
# To collect the tests of a group and run them once takes this long: below it, no fault would be tried.
_LEAST_SECONDS = 20


def read_accepted(path: Path = ACCEPTED) -> dict[str, str]:
    """Read the accepted survivors: key of the fault -> reason.

    A reason that begins with "equivalent" says that no test can notice the fault, since the code does the same with it.
    Any other is a debt: the fault counts as not noticed.
    """
    found: dict[str, str] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("accepted", []) if path.exists() else []:
        for key in entry["faults"]:
            found[key] = entry["reason"]
    return found


def write_accepted(accepted: dict[str, str], path: Path = ACCEPTED) -> None:
    """Write them, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in accepted.items():
        by_reason.setdefault(reason, []).append(key)
    blocks = ["# Faults that no test notices, and why that is accepted. `make mutants` fails on any other survivor."]
    for reason in sorted(by_reason):
        keys = "".join(f"  {json.dumps(key, ensure_ascii=False)},\n" for key in sorted(by_reason[reason]))
        blocks.append(f"[[accepted]]\nreason = {json.dumps(reason, ensure_ascii=False)}\nfaults = [\n{keys}]")
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def run_group(
    group: Group,
    modules: Sequence[str],
    *,
    seconds: float | None = None,
    seed: str = "",
    skipped: Iterable[str] = (),
    first: Mapping[str, Collection[int]] | None = None,
    further: bool = False,
) -> list[dict[str, Any]]:
    """Run one group in a process of its own.

    Raises:
        RuntimeError: the tests fail without any fault, or cannot be collected.
    """
    job = {
        "root": str(ROOT),
        "modules": list(modules),
        "tests": group.list_tests(),
        "seconds": seconds,
        "seed": seed,
        "skipped": sorted(skipped),
        "first": {module: sorted(lines) for module, lines in (first or {}).items()},
        "further": further,
    }
    done = subprocess.run(  # noqa: S603 - this package's own module
        [sys.executable, "-m", f"tools.mutants.{'patched' if group.patched else 'session'}"],
        cwd=Path(__file__).parents[2],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=die_with_lab,
    )
    if done.returncode:
        raise RuntimeError(f"{group.name}: exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def key_of(row: dict[str, Any]) -> str:
    """Name the fault as `Mutant.key` does."""
    return f"{row['module']}::{row['scope']}::{row['code']}::{row['change']}"


def score(rows: Sequence[dict[str, Any]], accepted: dict[str, str]) -> tuple[int, int]:
    """Count the faults that were noticed, and those that could be: without the equivalent ones."""
    possible = [
        row for row in rows if row["outcome"] != UNFIT and not accepted.get(key_of(row), "").startswith(EQUIVALENT)
    ]
    return sum(row["outcome"] in (KILLED, TIMED_OUT) for row in possible), len(possible)


def show(rows: Sequence[dict[str, Any]], accepted: dict[str, str]) -> list[dict[str, Any]]:
    """Print a line for each module and each survivor that is not accepted; return these."""
    print(f"{'module':<34} {'faults':>6} {'noticed':>8} {'accepted':>9} {'score':>6}")
    for module in sorted({row["module"] for row in rows}):
        own = [row for row in rows if row["module"] == module]
        killed, possible = score(own, accepted)
        listed = sum(key_of(row) in accepted for row in own)
        share = f"{killed / possible:.1%}" if possible else "-"
        print(f"{module:<34} {len(own):>6} {killed:>8} {listed:>9} {share:>6}")
    killed, possible = score(rows, accepted)
    outcomes = Counter(row["outcome"] for row in rows)
    details = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    print(f"all: {killed} of {possible} noticed ({killed / max(possible, 1):.1%}); {details}")
    new = [row for row in rows if row["outcome"] in (SURVIVED, UNCOVERED) and key_of(row) not in accepted]
    for row in new:
        where = f"{row['module']}:{row['line']}: {row['outcome']}: in {row['scope'] or 'the module'}"
        print(f"{where}: {row['code']}  [{row['change']}]")
    return new


def choose(wanted: Collection[str]) -> list[tuple[Group, list[str]]]:
    """Give the groups, each with its modules, that files and names of groups stand for."""
    found = []
    for group in GROUPS:
        modules = [module for module in group.list_modules() if group.name in wanted or module in wanted]
        if modules:
            found.append((group, modules))
    return found


def share_time(groups: int, seconds: float) -> tuple[int, float]:
    """Give how many of the groups can be run in a time, and how long each may take."""
    most = min(groups, _PROCESSES * max(int(seconds // _LEAST_SECONDS), 1))
    return most, seconds / -(-most // _PROCESSES)


def count_untried(
    modules: Iterable[str], rows: Sequence[dict[str, Any]], skipped: Collection[str], *, further: bool = False
) -> int:
    """Count the faults of these modules that there was no time for."""
    found = [mutant for module in modules for mutant in find_mutants(ROOT / module, ROOT, further=further)]
    return sum(mutant.key not in skipped for mutant in found) - len(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="files, or names of groups (default: all)")
    parser.add_argument(
        "--changed", action="store_true", help="only modules that differ from the main branch of origin"
    )
    parser.add_argument("--seconds", type=float, help="a sample, for at most this time (default: every fault)")
    parser.add_argument("--accept", metavar="REASON", help="accept the survivors for this reason")
    parser.add_argument("--further", action="store_true", help="the kinds of faults of tools/mutants/further.py")
    options = parser.parse_args(arguments)
    if options.further and options.accept:
        parser.error("--further: a survivor of these kinds is not accepted, many are equivalent")

    wanted, seed = set(options.modules), ""
    first: Mapping[str, Collection[int]] = {}
    if options.changed:
        try:
            changes = find_changes(ROOT)
        except UnknownChangeError as error:
            print(f"mutants: no fault was planted, since what has changed is not known: {error}")
            return 0
        wanted, seed, first = set(changes.lines), changes.commit, changes.lines
    chosen = choose(wanted) if options.changed or wanted else [(group, group.list_modules()) for group in GROUPS]
    if not chosen and options.changed:
        print(f"mutants: no fault was planted, since no module that has them differs from {changes.since}")
        return 0
    if not chosen:
        parser.error(f"no faults are planted in {', '.join(options.modules)}: see tools/mutants/modules.py")

    accepted = read_accepted(ACCEPTED)
    skipped: set[str] = set()
    seconds = options.seconds
    modules = [module for _, own in chosen for module in own]
    if seconds is not None:
        skipped = set(accepted)
        most, seconds = share_time(len(chosen), seconds)
        chosen = random.Random(seed).sample(chosen, most)  # noqa: S311  # no secret
    rows: list[dict[str, Any]] = []
    with concurrent.futures.ThreadPoolExecutor(max_workers=_PROCESSES) as pool:
        running = {
            pool.submit(
                run_group,
                group,
                own,
                seconds=seconds,
                seed=seed,
                skipped=skipped,
                first={module: first[module] for module in own if module in first},
                further=options.further,
            ): group.name
            for group, own in chosen
        }
        try:
            for done in concurrent.futures.as_completed(running):
                found = done.result()
                rows += found
                killed, possible = score(found, accepted)
                print(f"{running[done]}: {killed} of {possible} noticed", file=sys.stderr, flush=True)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
    rows.sort(key=lambda row: (row["module"], row["line"], row["number"]))
    new = show(rows, accepted)
    if seconds is not None and (untried := count_untried(modules, rows, skipped, further=options.further)):
        print(f"{untried} more faults were not tried: the {options.seconds:g} seconds were over")
    if options.accept:
        write_accepted(accepted | {key_of(row): options.accept for row in new}, ACCEPTED)
        return 0
    if options.seconds is None and not options.modules and not options.changed and not options.further:
        known = {key_of(row) for row in rows if row["outcome"] in (SURVIVED, UNCOVERED)}
        for key in sorted(set(accepted) - known):
            print(f"accepted, but noticed now or gone: {key}")
    if new:
        print(
            "No test notices what stands in brackets above. Write a test that fails with it, or accept it in"
            " tools/mutants/accepted.toml with a reason: docs/testing.md says how."
        )
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
