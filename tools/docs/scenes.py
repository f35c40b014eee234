"""The recorded scenes of the models (docs/data/xray.json): for their pages, and as a picture.

python -m tools.docs.scenes             # `make docs`: docs/images/xray.svg
"""

from collections.abc import Sequence

from lab.base.paths import ROOT
from lab.experiments.xray.analysis import Analysis
from lab.experiments.xray.recording import Recording, read_recordings
from lab.experiments.xray.sentences import conclude, explain
from lab.report.xray_svg import draw_together
from lab.report.xray_text import draw, make_legend
from tools.docs.markdown import make_fence

DATA = ROOT / "docs" / "data" / "xray.json"
PICTURE = ROOT / "docs" / "images" / "xray.svg"
# From the one that waits most to the one that waits least.
PICTURED = ("plain_socket", "asyncio_streams", "socketserver_threading", "prefork")
SLEEP, SLOW = "sleep", "slow"
_INTRODUCTIONS = {SLEEP: "", SLOW: "With a slow reader R and a slow sender S: "}
# What a page of the site and of GitHub shows without a scroll bar.
_WIDTH = 88
_NOT_YET = "Not recorded yet; `make xray` records it."


def make_scenes(recordings: Sequence[Recording], model: str) -> str:
    """Return the scenes of a model, each with what follows from it."""
    found = {each.scene: Analysis(each) for each in recordings if each.model == model}
    parts = []
    for scene, introduction in _INTRODUCTIONS.items():
        if analysis := found.get(scene):
            parts.append(f"{introduction}**{conclude(analysis)}.** {' '.join(explain(analysis))}")
            parts.append(make_fence("text", draw(analysis, _WIDTH)))
    return "\n\n".join(parts) or _NOT_YET


def make_legend_block(recordings: Sequence[Recording]) -> str:
    """Return the meaning of each character that a scene has."""
    return make_fence("text", make_legend(map(Analysis, recordings), _WIDTH))


def make_picture(recordings: Sequence[Recording]) -> str:
    """Return the scene of a few models below each other, as SVG."""
    found = {each.model: Analysis(each) for each in recordings if each.scene == SLEEP}
    return draw_together([found[name] for name in PICTURED], width=900)


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(make_picture(read_recordings(DATA)), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
