"""What `lab demo` starts, measures, prints and takes down, and its exit code. Nothing is started."""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from rich.text import Text

from lab.base import progress
from lab.base.errors import LabError
from lab.cli.commands import demo as command
from lab.experiments.demo import Demo
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, Verdict
from lab.report import demo_files
from lab.servers.catalogue import Catalogue, Model
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT, vary

CATALOGUE = Catalogue.load()
# Of a step: the difference of two times, and not a time of the clock, which is longer.
SECONDS = r"[ \d]{2}\d\.\d s"


class FakeLab(UnusedBackend):
    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Any] = []

    def down(self) -> None:
        self.events.append("down")


Invoke = Callable[..., Result]


@pytest.fixture(params=["process", "docker"])
def lab(request: pytest.FixtureRequest) -> FakeLab:
    return FakeLab(request.param)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lab: FakeLab) -> Invoke:
    """Run the command with a demo that notes its models and its time, and finds one measurement or an error."""

    def open_backend(name: str | None, project: str, *, catalogue: Catalogue) -> FakeLab:
        lab.events.append((name, project))
        return lab

    def invoke(
        *words: str, project: str | None = None, error: Exception | None = None, measured: Measurement = MEASUREMENT
    ) -> Result:
        def run(backend: object, models: Sequence[Model], found: Demo, step: Any, *, seconds: float) -> None:
            assert backend is lab
            with step("the first step"):
                lab.events.append(([model.name for model in models], seconds))
            demos[:] = [found]
            if error:
                raise error
            found.measurements.append(measured)

        monkeypatch.setattr(command, "run", run)
        obj = SimpleNamespace(backend_name=lab.name, project=project, catalogue=CATALOGUE)
        return CliRunner().invoke(command.demo, [*words, "--out", str(tmp_path)], obj=obj)

    monkeypatch.setattr(command, "open_backend", open_backend)

    def describe(backend: object, models: Sequence[Model], found: Demo) -> dict[str, str]:
        assert (backend, found) == (lab, demos[0])
        assert [model.name for model in models] == lab.events[-1][0]
        return {"date": "today"}

    demos: list[Demo] = []
    monkeypatch.setattr(command, "describe", describe)
    return invoke


def test_demo_has_a_lab_of_its_own_and_takes_it_down(lab: FakeLab, invoke: Invoke) -> None:
    done = invoke("prefork", "plain_socket", "--duration", "3500ms")
    assert done.exit_code == 0
    assert re.fullmatch(SECONDS + r"  the first step\n" + SECONDS + r"  taking the lab down\n", done.stderr)
    end = r"^ *asyncio_streams .*\n\n\d{1,3} s in total\.\nThe page, [^\n]*:\n  [^\n]*index\.html\n\Z"
    assert re.search(end, done.stdout, re.DOTALL | re.MULTILINE)
    assert lab.events == [(lab.name, "socketlab-demo"), (["plain_socket", "prefork"], 3.5), "down"]
    lab.events.clear()
    assert invoke("prefork", project="mine").exit_code == 0
    assert lab.events == [(lab.name, "mine"), (["prefork"], 2.0), "down"]
    assert invoke("prefork", measured=vary(MEASUREMENT, failures={"wrong bytes": 1})).exit_code == 1


@pytest.mark.parametrize("error", [LabError("no engine"), KeyboardInterrupt()])
def test_demo_that_is_broken_off_is_taken_down(lab: FakeLab, invoke: Invoke, error: Exception) -> None:
    assert invoke("prefork", error=error).exit_code == 1  # as click has it; tests/lab/cli/test_exit_codes.py
    assert lab.events[-1] == "down"


def test_default_is_all_models_and_in_containers_the_peers(lab: FakeLab, invoke: Invoke) -> None:
    assert invoke().exit_code == 0
    _, (models, _), _ = lab.events
    assert {"plain_socket", "prefork"} <= set(models)
    assert ("peer_redis" in models) == (lab.name == "docker")


@pytest.mark.parametrize("place", ["measurements", "waits", "http"])
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({}, 0),
        ({"failures": {"wrong bytes": 1}}, 1),
        ({"verdict": Verdict(Limit.WRONG, "wrong replies")}, 1),
        ({"verdict": Verdict(Limit.DISTURBED, "a generator was lost")}, 2),
    ],
)
def test_exit_code_of_a_demo_is_that_of_each_of_its_loads(place: str, bad: dict[str, object], code: int) -> None:
    measured = {"measurements": MEASUREMENT, "waits": MEASUREMENT, "http": MEASUREMENT} | {
        place: vary(MEASUREMENT, **bad)
    }
    found = Demo(
        {}, measurements=[measured["measurements"]], waits={"a": measured["waits"]}, http={"a": measured["http"]}
    )
    assert command.find_exit_code(found) == code
    # A model that is missing is as bad as a request that failed, and no excuse for a disturbed measurement.
    found.missing["b"] = "it ended"
    assert command.find_exit_code(found) == (code or 1)


DISTURBED = vary(MEASUREMENT, verdict=Verdict(Limit.DISTURBED, "a generator was lost"), core_steal=(0.1, 0.0))
BOUND = vary(MEASUREMENT, model="uvloop_streams", verdict=Verdict(Limit.GENERATOR, "it was"))


def make_demo(*measured: Measurement, **fields: Any) -> Demo:
    families = {item.model: item.family for item in measured} | dict.fromkeys(fields.get("missing", ()), "process")
    return Demo(families, rounds={item.model: [item] for item in measured}, **fields)


def show(out: Path) -> Result:
    """Print the last demo. It needs no lab."""
    return CliRunner().invoke(command.demo, ["--show", "latest", "--out", str(out)], obj=SimpleNamespace())


def test_stored_demo_is_printed_again_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    http = {"uvloop_streams": vary(BOUND, answered=4321)}
    waits = {"asyncio_streams": vary(MEASUREMENT, verdict=Verdict(Limit.DISTURBED, "a [b]worker[/b] was lost"))}
    found = make_demo(DISTURBED, BOUND, waits=waits, http=http, missing={"prefork": "it [b]fails[/b]"})
    page = demo_files.write(tmp_path, found, {"date": "today"})
    text = page.read_text()
    page.unlink()
    done = show(tmp_path)
    assert done.exit_code == 2
    assert page.read_text() == text
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    # Under each name is the summary, and beside it the word of the verdict alone.
    row = lines.index("asyncio_streams 10.0k 100 900 40.0 15.0 MiB 10.0k – – disturbed")  # noqa: RUF001
    assert lines[row + 1] == "one line"
    assert "uvloop_streams ≥ 10.0k 100 900 40.0 15.0 MiB – ≥ 4.32k 40.0 generator-bound" in lines  # noqa: RUF001
    said = " ".join(lines)
    assert (
        "not measured: prefork: it [b]fails[/b] asyncio_streams: 20 ms waits/s: disturbed: a [b]worker[/b] was lost"
        in said
    )
    assert "was lost In 1 of 1 loads a hypervisor gave a part of this machine's cores to others, up to 5%." in said
    assert (
        "≥: a lower bound. The limit was the load generator or the machine, not the server. The load: 16 clients"
        in said
    )
    assert lines[-2].startswith("The page, with the reason")
    assert lines[-1] == f"demo/{page.parent.name}/index.html"
    # Elsewhere, it is named in full.
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert show(tmp_path).stdout.splitlines()[-1] == f"  {page}"


def test_full_disk_changes_no_result(tmp_path: Path) -> None:
    page = demo_files.write(tmp_path, make_demo(DISTURBED), {"date": "today"})
    printed = show(tmp_path).stdout
    page.unlink()
    page.mkdir()  # it cannot be replaced by a file
    done = show(tmp_path)
    assert done.exit_code == 2
    assert done.stdout == printed[: printed.index("The page, with the reason")]
    assert done.stderr.startswith(f"lab: not stored: {page.parent}: cannot be written")


def test_demo_without_a_measurement_has_no_table(tmp_path: Path) -> None:
    demo_files.write(tmp_path, make_demo(missing={"prefork": "it fails"}), {"date": "today"})
    done = show(tmp_path)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "not measured: prefork: it fails"
    demo_files.write(tmp_path, make_demo(MEASUREMENT), {"date": "today"})
    assert "lower bound" not in show(tmp_path).stdout


def test_step_is_a_line_with_its_time() -> None:
    """A build names its steps in brackets, which are no markup."""
    console = Console(file=StringIO(), highlight=False)
    with console.capture() as capture, command.show_step(console, "image [b]a[/b]"):
        assert not progress._spinners
    assert re.fullmatch(SECONDS + r"  image \[b\]a\[/b\]\n", capture.get())


def test_step_has_a_spinner_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the progress of the step, as much of it as fits into one line, and otherwise what the step is."""
    console = Console(file=StringIO(), force_terminal=True, width=24)
    shown: list[Any] = []
    monkeypatch.setattr(console, "status", lambda _: nullcontext(SimpleNamespace(update=shown.append)))
    with command.show_step(console, "load: HTTP"), progress.progress_line() as show:
        show("20 columns [b]are[/b")
        show("21 columns [b]are[/b]")
    assert shown == [Text(text) for text in ("20 columns [b]are[/b", "21 columns [b]are[/…", "load: HTTP")]
    assert not progress._spinners
