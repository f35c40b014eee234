"""Which modules have changed, and on which lines: against the main branch of `origin`, or else the last commit."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# In the output of `git diff --unified=0`: the lines that a hunk has on the new side.
_HUNK = re.compile(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@")


class UnknownChangeError(Exception):
    """What has changed cannot be known here. The message says why."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed.

    Args:
        since: what the files are compared with, as a person names it.
        lines: file -> the lines that are new in it; of a file that git does not know, none are named.
        commit: the last commit; the seed of a sample.
    """

    since: str
    commit: str
    lines: Mapping[str, frozenset[int]] = field(default_factory=dict)


def find_changes(root: Path) -> Changes:
    """Compare the files of a project with the commit where its branch left the main branch of `origin`.

    Without such a branch they are compared with the commit before the last one. Changes that are not committed count.

    Raises:
        UnknownChangeError: there is no git, no repository, or no commit to compare with.
    """
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    if Path(top).resolve() != root.resolve():
        raise UnknownChangeError(f"{root} is a source archive inside another repository, {top}")
    commit = _git(root, "rev-parse", "HEAD").strip()
    base, since = _find_base(root)
    lines = _read_diff(_git(root, "diff", "--unified=0", "--no-color", "--no-ext-diff", "--no-renames", base, "--"))
    unknown = _git(root, "ls-files", "--others", "--exclude-standard").splitlines()
    return Changes(since, commit, lines | dict.fromkeys(unknown, frozenset()))


def _find_base(root: Path) -> tuple[str, str]:
    """Give the commit to compare with, and its name."""
    for branch in (_ask(root, "rev-parse", "--abbrev-ref", "origin/HEAD"), "origin/main", "origin/master"):
        if branch and (base := _ask(root, "merge-base", "HEAD", branch)):
            return base, f"the merge base with {branch}"
    base = _ask(root, "rev-parse", "--verify", "--quiet", "HEAD~1^{commit}")
    if base is None:
        raise UnknownChangeError(
            "neither a merge base with the main branch of origin nor a commit before the last one is in this clone"
        )
    return base, "the commit before the last one"


def _read_diff(text: str) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("+++ "):
            name = line.removeprefix("+++ ").partition("/")[2].rstrip("\t")
            found[name] = frozenset()
        elif name and (hunk := _HUNK.match(line)):
            first, count = int(hunk[1]), int(hunk[2] or 1)
            found[name] |= set(range(first, first + count))
    return found


def _ask(root: Path, *arguments: str) -> str | None:
    """Give what git says, or None if it refuses."""
    try:
        return _git(root, *arguments).strip() or None
    except UnknownChangeError:
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "core.quotePath=false", "-c", "diff.noprefix=false", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - git, with arguments made here
            command, cwd=root, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        raise UnknownChangeError("there is no git here") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"git {arguments[0]} failed"]
        raise UnknownChangeError(said[0])
    return done.stdout
