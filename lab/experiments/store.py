"""Where a benchmark is kept: a folder a run, a file for each thing in it, and none is ever overwritten.

    results/<name>/<UTC time>/
      run.json            schema, plan with its seed, environment: written before anything is measured
      steps/<key>.json    what came of a step: a measurement with raw histograms and readings, or why there is none
      logs/<server>.log   what the servers have written
      end.json            written when there was nothing left to measure: without it, a run can be resumed
      index.html, report.md    made from the rest, and the only files that are made anew
    results/<name>/latest      the run that was begun last

A file appears under its name when it is whole. So a run that was killed at any moment can be read, and resumed.
"""

import contextlib
import errno
import fcntl
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from lab.base.errors import LabError
from lab.base.paths import RESULTS

# Of the files' form. Raised when a reader of the old one would misread the new one, or the other way round.
SCHEMA = 3

LATEST = "latest"
_RUN, _END, _STEPS, _LOGS = "run.json", "end.json", "steps", "logs"
_TIME = "%Y-%m-%dT%H%M%SZ"


class StoreError(LabError):
    """A run cannot be kept, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run as it is on the disk.

    Args:
        folder: where.
        facts: what `run.json` holds beside the schema: `name`, `plan`, `environment` and whatever was given.
    """

    folder: Path
    facts: Mapping[str, Any]

    @classmethod
    def create(cls, name: str, facts: Mapping[str, Any], *, root: Path = RESULTS) -> Self:
        """Begin a run.

        Args:
            name: what is measured; one word, since it is a folder.
            facts: what is known before anything is measured, for `run.json`.
            root: where all results are.

        Raises:
            StoreError: it cannot be written there.
        """
        started = datetime.now(UTC).strftime(_TIME)
        with _told(root / name):
            folder = make_folder(root / name, started)
        run = cls(folder, {"name": name, **facts})
        run._write(_RUN, {"schema": SCHEMA, **run.facts})
        with _told(folder):
            point(folder.parent / LATEST, folder.name)
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a run that exists.

        Raises:
            StoreError: it is none, or one that this version cannot read.
        """
        path = folder / _RUN
        if not path.is_file():
            raise StoreError(f"{folder}: no run of `lab bench`: it has no {_RUN}")
        facts = dict(_read(path))
        schema = facts.pop("schema", None)
        if schema != SCHEMA:
            age = "a later" if isinstance(schema, int) and schema > SCHEMA else "an earlier"
            commit = (facts.get("environment") or {}).get("commit") or "not known"
            raise StoreError(
                f"{folder}: its files are of schema {schema}, and this version reads {SCHEMA}: "
                f"{age} version of the lab wrote them (commit {commit})"
            )
        return cls(folder, facts)

    @classmethod
    def find(cls, text: str | None, name: str, *, root: Path = RESULTS) -> Self:
        """Read the run that somebody means.

        Args:
            text: a folder, or the time that names one, or `latest`; None for the same.
            name: what was measured.
            root: where all results are.

        Raises:
            StoreError: there is none.
        """
        text = text or LATEST
        for folder in (root / name / text, Path(text)):
            if folder.is_dir():
                return cls.open(folder.resolve())
        known = sorted(path.name for path in (root / name).glob("*") if path.is_dir() and not path.is_symlink())
        there_are = f"there are {', '.join(known[-5:])}" if known else "nothing has been measured yet"
        raise StoreError(f"no run {text!r} in {root / name}: {there_are}")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes to this run.

        Raises:
            StoreError: somebody else does.
        """
        with (self.folder / _RUN).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"{self.folder}: another process is measuring into it") from None
            yield

    def keep(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep what came of a step.

        Args:
            key: names it; its parts, separated by `/`, become folders.

        Raises:
            StoreError: there is one of this key already, or it cannot be written.
        """
        self._write(f"{_STEPS}/{key}.json", record)

    def path_of(self, key: str) -> str:
        """Where a step's file is, as seen from the run's folder."""
        return f"{_STEPS}/{key}.json"

    def list_keys(self) -> list[str]:
        """Of everything that was kept."""
        top = self.folder / _STEPS
        return [str(path.relative_to(top).with_suffix("")) for path in sorted(top.rglob("*.json")) if path.is_file()]

    def steps(self) -> dict[str, dict[str, Any]]:
        """Everything that was kept, by key.

        Raises:
            StoreError: a file holds something else than was written.
        """
        return {key: self.read(key) for key in self.list_keys()}

    def read(self, key: str) -> dict[str, Any]:
        """What was kept of a step.

        Raises:
            StoreError: nothing was, or its file holds something else than was written.
        """
        return dict(_read(self.folder / self.path_of(key)))

    def has(self, key: str) -> bool:
        """Whether a step has been kept."""
        return (self.folder / self.path_of(key)).exists()

    def keep_log(self, server: str, text: str) -> None:
        """Keep what a server has written; of a run that is resumed, each part under a name of its own."""
        write_new(self.folder / _LOGS, server, {".log": text})

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Say that there is nothing left to measure."""
        self._write(_END, facts)

    @property
    def is_finished(self) -> bool:
        """Whether nothing was left to measure."""
        return (self.folder / _END).exists()

    @property
    def end(self) -> Mapping[str, Any]:
        """What was known when nothing was left to measure; nothing before that."""
        return _read(self.folder / _END) if self.is_finished else {}

    @property
    def started(self) -> str:
        """When it was begun, which is its name."""
        return self.folder.name

    def write_report(self, name: str, text: str) -> None:
        """Write what is made from the rest, again if need be."""
        with _told(self.folder):
            part = self.folder / f".{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(self.folder / name)

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        _create(self.folder / name, json.dumps(data) + "\n")


def point(link: Path, target: str) -> None:
    """Set a symlink in one step, so that nobody who looks finds it missing."""
    part = link.with_name(f".{link.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def make_folder(parent: Path, name: str) -> Path:
    """A folder that did not exist before: two runs may begin in the same second."""
    parent.mkdir(parents=True, exist_ok=True)
    folders = _number(parent, name)
    while True:
        with contextlib.suppress(FileExistsError):
            folder = next(folders)
            folder.mkdir()
            return folder


def check_writable(folder: Path) -> None:
    """See that files can be written to a folder, which is made if need be: before a result depends on it.

    Raises:
        StoreError: they cannot.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


def write_new(folder: Path, stem: str, texts: Mapping[str, str]) -> Path:
    """Write files that belong together: `stem` and an ending each; with a number where a file of this name exists.

    Args:
        texts: by ending.

    Returns:
        The path that they have in common.

    Raises:
        StoreError: they cannot be written; none of them is there then.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stems = _number(folder, stem)
        while True:
            path = next(stems)
            made: list[Path] = []
            try:
                for ending, text in texts.items():
                    # "x": it must not be there yet, not even since a moment ago.
                    with path.with_name(path.name + ending).open("x", encoding="utf-8") as file:
                        made.append(Path(file.name))
                        file.write(text)
                return path
            except BaseException as error:
                for each in made:
                    each.unlink()
                if not isinstance(error, FileExistsError):
                    raise


@contextlib.contextmanager
def tolerated(say: Callable[[str], object]) -> Iterator[None]:
    """Go on where a result cannot be kept: it is shown, and what it says stays true."""
    try:
        yield
    except (StoreError, OSError) as error:
        say(f"lab: not kept: {error}")


def _number(parent: Path, name: str) -> Iterator[Path]:
    """`name`, `name-2`, `name-3` and so on."""
    yield parent / name
    for number in itertools.count(2):
        yield parent / f"{name}-{number}"


def _create(path: Path, text: str) -> None:
    """Write a file that must not be there yet; it is whole, or it is not there."""
    if path.exists():
        raise StoreError(f"{path} is there already, and nothing is ever overwritten")
    with _told(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Make what the system refuses a line for people."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; what was measured until now is kept" if full else error.strerror
        raise StoreError(f"{folder}: cannot be written: {why}") from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}; without this file, --resume measures it again") from None
    if not isinstance(data, dict):
        raise StoreError(f"{path}: not what `lab bench` writes")
    return data
