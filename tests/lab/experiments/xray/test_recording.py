"""The file of a recording: everything is read back, and what is no recording is refused with the reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.experiments.xray.recording import Recording, SystemCall, TracedThread, read_recordings, write_recordings
from tests.support.made_up_xray import SEQUENTIAL, make_kernel, make_process, make_recording, make_switches

# No two figures are equal, and none is a default.
THREADS = make_kernel((1, 2, "running", 0.25), (2, 4, "futex", 0.5), tid=31) + make_kernel((1, 3, "R", 0.75), tid=32)
RECORDING = replace(
    make_recording([make_process(21, [SEQUENTIAL], has_gil=False)], threads=THREADS, missing=["the GIL: not asked"]),
    threads=(replace(THREADS[0], switches=make_switches((1, 2, 5), (2, 3, 6))), THREADS[1]),
    look=11,
    clock=12,
    traced=(TracedThread(31, (SystemCall(13, 14, "futex"), SystemCall(15, 16, "brk"))),),
    misaligned=17,
    has_ended=True,
    machine={"cores": "2", "kernel": None},
)


def test_recordings_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    other = replace(RECORDING, model="other", threads=(), traced=(), misaligned=0, has_ended=False)
    write_recordings(path, [RECORDING, other])
    assert read_recordings(path) == [RECORDING, other]
    # One a line, without spaces: a diff shows which has changed.
    lines = path.read_text().splitlines()
    assert [lines[0], lines[-1], len(lines)] == ["[", "]", 4]
    assert '"misaligned":17' in lines[1]


def test_recording_of_an_older_version_lacks_what_strace_saw() -> None:
    """Such are the stored ones of before `--kernel`: no call, no error of a clock, and no end of the server."""
    data = RECORDING.as_json()
    for name in ("traced", "misaligned", "has_ended"):
        del data[name]
    assert Recording.from_json(data) == replace(RECORDING, traced=(), misaligned=0, has_ended=False)
    assert make_recording([]).misaligned == 0
    assert not make_recording([]).has_ended
    required = {name: getattr(RECORDING, name) for name in ("model", "scene", "date", "backend", "clients", "end")}
    # Without a look at the kernel.
    assert (Recording(**required).look, Recording(**required).clock) == (0, 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "x is not a recording of `lab xray`"),
        ({"version": 1}, "x is not a recording of `lab xray`"),
        ({"clients": []}, "x is not a recording of `lab xray`"),
        ({"version": 2, "clients": []}, "x is a recording of version 2, and this lab reads version 1: record again"),
        ({"version": 1, "clients": []}, "x is a damaged recording: KeyError('model')"),
    ],
)
def test_anything_else_is_refused(data: Any, said: str) -> None:
    with pytest.raises(LabError) as refused:
        Recording.from_json(data, "x")
    assert str(refused.value) == said


def test_file_that_is_none_of_recordings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(LabError, match=r"x\.json: No such file or directory$"):
        read_recordings(path)
    with pytest.raises(LabError, match=f"^{tmp_path}: Is a directory$"):
        read_recordings(tmp_path)
    # The last one is no UTF-8: it begins as a file of gzip does.
    for data in (b"not JSON", b'{"version": 1}', b"\x1f\x8b\x08"):
        path.write_bytes(data)
        with pytest.raises(LabError, match=r"x\.json is not a recording of `lab xray`$"):
            read_recordings(path)
