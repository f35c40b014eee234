"""Render a measurement as files: JSON, and its times in the format of HdrHistogram's plotters."""

import io
import json

from lab.load.measurement import Measurement
from lab.load.presets import Preset
from loadtests.sockets.histogram import Histogram
from services.protocol import Transport


def describe_changes(
    preset: Preset,
    *,
    users: int,
    rate: float | None,
    transport: Transport,
    payload: int | None,
    duration: float,
    workers: int,
) -> str:
    """Return how a load differs from its preset, as a part of a file's name; empty if it does not differ."""
    changes = {
        transport.value: transport is not preset.transport,
        f"{users}users": users != preset.users,
        f"{rate or 0:g}rps": rate is not None and rate != preset.rate,
        f"{payload}bytes": payload is not None,
        f"{duration:g}s": duration != preset.duration,
        f"{workers}workers": workers != 0,
    }
    return "".join(f"-{text}" for text, is_changed in changes.items() if is_changed)


def render_files(found: Measurement) -> dict[str, str]:
    """Return the text of each file by the ending of its name."""
    kinds = {} if found.service is None else {"intended": found.histogram}
    kinds["service"] = found.histogram if found.service is None else found.service
    texts = {".json": json.dumps(found.as_json(), indent=1) + "\n"}
    for kind, pairs in kinds.items():
        file = io.StringIO()
        Histogram.from_pairs(pairs).write_hgrm(file)
        texts[f"-{kind}.hgrm"] = file.getvalue()
    return texts
