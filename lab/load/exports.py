"""Render a measurement as files: JSON, its times in the format of HdrHistogram's plotters, its course as CSV."""

import csv
import io
import json

from lab.load.measurement import Measurement
from lab.load.presets import Preset
from lab.metrics.server_use import SERIES
from loadtests.contract import COURSE

# Of the server's readings, the CPU time is shown as cores.
_COLUMNS = (*COURSE, "cpu_cores", *SERIES[2:])


def describe_changes(load: Preset, preset: Preset, *, workers: int) -> str:
    """Return how a load differs from its preset, as a part of a file's name; empty if it does not differ."""
    new, old = load.spec, preset.spec
    changes = {
        new.transport.value: new.transport is not old.transport,
        f"{new.users}users": new.users != old.users,
        f"{new.rate:g}rps": new.rate != old.rate,
        f"{new.payload}bytes": new.payload != old.payload,
        f"{load.duration:g}s": load.duration != preset.duration,
        f"{workers}workers": workers != 0,
    }
    return "".join(f"-{text}" for text, is_changed in changes.items() if is_changed)


def render_files(found: Measurement) -> dict[str, str]:
    """Return the text of each file by the ending of its name."""
    kinds = {"service": found.load.service}
    if found.load.intended is not None:
        kinds["intended"] = found.load.intended
    texts = {".json": json.dumps(found.as_json(), indent=1) + "\n"}
    for kind, times in kinds.items():
        file = io.StringIO()
        times.write_hgrm(file)
        texts[f"-{kind}.hgrm"] = file.getvalue()
    if found.load.course:
        file = io.StringIO()
        csv.writer(file).writerows([_COLUMNS, *list_course(found)])
        texts["-course.csv"] = file.getvalue()
    return texts


def list_course(found: Measurement) -> list[tuple[float | None, ...]]:
    """Return a row for each second of the window: what the generator has seen, and what the server used.

    The server's CPU cores are the mean since the row before.
    """
    rows: list[tuple[float | None, ...]] = []
    latest: tuple[float | None, ...] | None = None
    for row in found.load.course:
        reading = _find_reading(found, _seconds_of(row))
        cores = None
        if reading and latest and reading[1] is not None and latest[1] is not None and reading[0] != latest[0]:
            cores = (reading[1] - latest[1]) / (_seconds_of(reading) - _seconds_of(latest))
        rows.append((*row, cores, *(reading[2:] if reading else [None] * 4)))
        latest = reading
    return rows


def _find_reading(found: Measurement, seconds: float) -> tuple[float | None, ...] | None:
    """Return the last reading of the server before a second of the window; None if there is none."""
    begin = found.server.window_begin
    if begin is None:
        return None
    return next((item for item in reversed(found.server.series) if _seconds_of(item) <= begin + seconds), None)


def _seconds_of(row: tuple[float | None, ...]) -> float:
    """Return the first column, which every row has."""
    return row[0] or 0.0
