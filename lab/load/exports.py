"""Render a measurement as files: JSON, and its times in the format of HdrHistogram's plotters."""

import io
import json

from lab.load.measurement import Measurement
from lab.load.presets import Preset


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
    return texts
