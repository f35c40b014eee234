"""Make the page of `lab xray`: one HTML file that needs no network, no script and no other file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.experiments.xray.analysis import SHORTEST, Analysis, Lane, State
from lab.experiments.xray.calls import sum_up
from lab.experiments.xray.recording import Recording
from lab.experiments.xray.scenes import SCENES
from lab.experiments.xray.sentences import conclude, describe_switches, describe_tracing, explain, show_ms
from lab.report.html import load_template
from lab.report.xray_svg import NARROW, PATTERNS, STYLE, WIDE, Shared, describe, draw, measure_label

_LEGEND = (
    ("backlog", "in the backlog: connected as far as the client can tell"),
    ("silent", "connected, and silent"),
    ("unread", "the client has sent, and the server has not read it"),
    ("sleeping", "the server sleeps for a client"),
    ("computing", "the server computes for a client"),
    ("sending", "the server waits until a client takes its reply"),
    ("reading", "the server waits for a request of a client, or the rest of one"),
    ("running", "the server runs, or is between two steps for the client"),
    ("gil", "waits for the GIL, a lock or a core"),
)


@dataclass(frozen=True, slots=True)
class _Section:
    """A recording as the template needs it. The drawings are markup."""

    anchor: str
    model: str
    conclusion: str
    sentences: Sequence[str]
    wide: str
    narrow: str
    lanes: Sequence[tuple[str, Sequence[str]]]
    missing: Sequence[str]
    waits: Sequence[tuple[str, str]]
    tracing: str


@dataclass(frozen=True, slots=True)
class _Group:
    title: str
    names: Sequence[str]
    sections: Sequence[_Section]


def render(recordings: Sequence[Recording], *, missing: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        recordings: in the order of the page.
        missing: models that could not be recorded, with the reason.
    """
    error = max((each.clock for each in recordings), default=0)
    # The longest of them all: each scene has at least this resolution.
    look = max((each.look for each in recordings), default=0)
    groups: list[_Group] = []
    for scene in dict.fromkeys(each.scene for each in recordings):
        chosen = [Analysis(each) for each in recordings if each.scene == scene]
        end = max(each.recording.end for each in chosen)
        label = max(measure_label(each) for each in chosen)
        sections = [_make_section(each, end, label, Shared(f"s{len(groups)}", n)) for n, each in enumerate(chosen)]
        title = SCENES[scene].title if scene in SCENES else scene
        names = [client.name for client in chosen[0].recording.clients]
        groups.append(_Group(title, names, sections))
    return load_template("xray.html.j2").render(
        groups=groups,
        legend=_LEGEND,
        style=STYLE,
        patterns=PATTERNS,
        is_traced=any(each.traced for each in recordings),
        is_switched=any(thread.switches is not None for each in recordings for thread in each.threads),
        missing=missing,
        look=f"The kernel was looked at every {look / 1e6:.2g} ms." if look else "",
        clock=f"All of them read one clock, CLOCK_MONOTONIC, which takes {error} ns." if error else "",
        date=recordings[0].date if recordings else "",
        machine={name: value for name, value in (recordings[0].machine if recordings else {}).items() if value},
    )


def _make_section(analysis: Analysis, end: int, label: int, shared: Shared) -> _Section:
    recording = analysis.recording
    return _Section(
        anchor=f"{recording.model}-{recording.scene}",
        model=recording.model,
        conclusion=conclude(analysis),
        sentences=explain(analysis),
        wide=draw(analysis, width=WIDE, end=end, label=label, shared=shared),
        narrow=draw(analysis, width=NARROW, end=end, label=label, shared=shared),
        lanes=[(lane.name, _list_words(lane)) for lane in analysis.lanes],
        missing=recording.missing,
        waits=[(name, show_ms(wait) if wait >= SHORTEST else "–") for name, wait in analysis.waits.items()],  # noqa: RUF001
        tracing=describe_tracing(recording),
    )


def _list_words(lane: Lane) -> Sequence[str]:
    told = (span for span in lane.spans if span.state not in (State.CONNECTED, State.IDLE))
    words = [describe(span) for span in told if span.end - span.start >= SHORTEST]
    if switches := describe_switches(lane):
        words.append(switches)
    if lane.calls:
        sums = [f"{name} {number} times, {show_ms(took)}" for name, number, took in sum_up(lane.calls)]
        words.append(f"system calls: {'; '.join(sums)}")
    return words
