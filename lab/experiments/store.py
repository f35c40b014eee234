"""Store runs: a folder per run, a file per result, and no file is overwritten.

    results/<name>/<UTC time>/
      run.json            schema, plan with its seed, environment: written before the first measurement
      steps/<key>.json    the result of a step: a measurement with histograms and readings, or why there is none
      logs/<server>.log   the logs of the servers
      end.json            written at the end: without it, a run can be resumed
      index.html, report.md    made from the rest; the only files that are replaced
    results/<name>/latest      a link to the run that started last

A file is renamed to its name when it is complete. So a run that was killed at any moment can be read and resumed.
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

# Version of the file format. Increase it if an old reader would misread new files, or a new one old files.
SCHEMA = 3

LATEST = "latest"
_RUN, _END, _STEPS, _LOGS = "run.json", "end.json", "steps", "logs"
_PAGE, _REPORT = "index.html", "report.md"
_TIME = "%Y-%m-%dT%H%M%SZ"


class StoreError(LabError):
    """A run cannot be stored or read."""


@dataclass(frozen=True, slots=True)
class Run:
    """One stored run.

    Args:
        folder: Its folder.
        facts: The content of `run.json` without the schema: `name`, `plan`, `environment` and so on.
    """

    folder: Path
    facts: Mapping[str, Any]

    @classmethod
    def create(cls, name: str, facts: Mapping[str, object], *, root: Path = RESULTS) -> Self:
        """Create the folder of a new run.

        Args:
            name: The experiment, which becomes a folder.
            facts: The facts known before the first measurement, for `run.json`.
            root: The folder of all results.

        Raises:
            StoreError: It cannot be written there.
        """
        started = datetime.now(UTC).strftime(_TIME)
        with _as_store_error(root / name):
            folder = make_folder(root / name, started)
        run = cls(folder, {"name": name, **facts})
        run._write(_RUN, {"schema": SCHEMA, **run.facts})
        with _as_store_error(folder):
            point(folder.parent / LATEST, folder.name)
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a stored run.

        Raises:
            StoreError: The folder has no run, or one that this version cannot read.
        """
        path = folder / _RUN
        if not path.is_file():
            raise StoreError(f"{folder}: not a stored run: it has no {_RUN}")
        facts = dict(_read(path))
        schema = facts.pop("schema", None)
        if schema != SCHEMA:
            age = "a later" if isinstance(schema, int) and schema > SCHEMA else "an earlier"
            commit = (facts.get("environment") or {}).get("commit") or "not known"
            raise StoreError(
                f"{folder}: its files have schema {schema}, and this version reads {SCHEMA}: "
                f"{age} version of the lab wrote them (commit {commit})"
            )
        return cls(folder, facts)

    @classmethod
    def find(cls, text: str | None, name: str, *, root: Path = RESULTS) -> Self:
        """Open the run that a text names.

        Args:
            text: A folder, the time of a run, or `latest` (default).
            name: The experiment.
            root: The folder of all results.

        Raises:
            StoreError: There is none.
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
        """Lock the run for writing.

        Raises:
            StoreError: Another process has the lock.
        """
        with (self.folder / _RUN).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"{self.folder}: another process is measuring into it") from None
            yield

    def keep(self, key: str, record: Mapping[str, object]) -> None:
        """Store the result of a step.

        Args:
            key: Its parts, separated by `/`, become folders.

        Raises:
            StoreError: The key exists, or the file cannot be written.
        """
        self._write(self.path_of(key), record)

    def path_of(self, key: str) -> str:
        return f"{_STEPS}/{key}.json"

    def list_keys(self, within: str = "") -> list[str]:
        """Return the keys of all stored steps, or of those within a folder."""
        top = self.folder / _STEPS
        paths = sorted((top / within).rglob("*.json"))
        return [str(path.relative_to(top).with_suffix("")) for path in paths if path.is_file()]

    def steps(self) -> dict[str, dict[str, Any]]:
        """Return all stored steps by key.

        Raises:
            StoreError: A file is damaged.
        """
        return {key: self.read(key) for key in self.list_keys()}

    def read(self, key: str) -> dict[str, Any]:
        """Return the stored result of a step.

        Raises:
            StoreError: It does not exist, or its file is damaged.
        """
        return dict(_read(self.folder / self.path_of(key)))

    def has(self, key: str) -> bool:
        return (self.folder / self.path_of(key)).exists()

    def keep_log(self, server: str, text: str) -> None:
        """Store the log of a server. A resumed run adds a file with a number."""
        write_new(self.folder / _LOGS, server, {".log": text})

    def finish(self, facts: Mapping[str, object]) -> None:
        """Mark the run as completed."""
        self._write(_END, facts)

    @property
    def is_finished(self) -> bool:
        return (self.folder / _END).exists()

    @property
    def end(self) -> Mapping[str, Any]:
        """The facts given to `finish`; empty before that."""
        return _read(self.folder / _END) if self.is_finished else {}

    @property
    def started(self) -> str:
        """The time of the start, which is the folder's name."""
        return self.folder.name

    def write_page(self, page: str, report: str = "", files: Mapping[str, str] | None = None) -> Path:
        """Write the page, and perhaps a report for other programs, replacing earlier ones; return the page's path.

        Args:
            files: What goes with the page, by name.
        """
        texts = {**(files or {}), _PAGE: page} | ({_REPORT: report} if report else {})
        for name, text in texts.items():
            self.write_file(name, text)
        return self.folder / _PAGE

    def write_file(self, name: str, text: str) -> Path:
        """Write a file for readers, replacing an earlier one; return its path.

        Args:
            name: Its parts, separated by `/`, become folders.
        """
        path = self.folder / name
        _write_whole(path, text)
        return path

    def _write(self, name: str, data: Mapping[str, object]) -> None:
        path = self.folder / name
        if path.exists():
            raise StoreError(f"{path} exists, and no result is overwritten")
        _write_whole(path, json.dumps(data) + "\n")


def point(link: Path, target: str) -> None:
    """Set a symlink atomically, so that it is never missing."""
    part = link.with_name(f".{link.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def make_folder(parent: Path, name: str) -> Path:
    """Create a new folder; add a number if it exists, since two runs may start in the same second."""
    parent.mkdir(parents=True, exist_ok=True)
    folders = _number(parent, name)
    while True:
        with contextlib.suppress(FileExistsError):
            folder = next(folders)
            folder.mkdir()
            return folder


def check_writable(folder: Path) -> None:
    """Create a folder if it does not exist, and check that it is writable.

    Raises:
        StoreError: It is not.
    """
    with _as_store_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


def write_new(folder: Path, stem: str, texts: Mapping[str, str]) -> Path:
    """Write files that belong together, named by `stem` and an ending. If one exists, add a number to all names.

    Args:
        texts: By ending.

    Returns:
        The common part of their paths.

    Raises:
        StoreError: One cannot be written; then none is left.
    """
    with _as_store_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stems = _number(folder, stem)
        while True:
            path = next(stems)
            made: list[Path] = []
            try:
                for ending, text in texts.items():
                    # "x" fails if the file exists, without a race.
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
    """Report a result that cannot be stored, and continue: it has been printed, and is still valid."""
    try:
        yield
    except (StoreError, OSError) as error:
        say(f"lab: not stored: {error}")


def _number(parent: Path, name: str) -> Iterator[Path]:
    """Yield `name`, `name-2`, `name-3` and so on."""
    yield parent / name
    for number in itertools.count(2):
        yield parent / f"{name}-{number}"


def _write_whole(path: Path, text: str) -> None:
    """Write a file atomically: it is complete, or it does not change."""
    with _as_store_error(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _as_store_error(folder: Path) -> Iterator[None]:
    """Turn an OSError into a message."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; the measurements so far are stored" if full else error.strerror
        raise StoreError(f"{folder}: cannot be written: {why}") from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}; without this file, --resume measures it again") from None
    if not isinstance(data, dict):
        raise StoreError(f"{path}: not a file of the store")
    return data
