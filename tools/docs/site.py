"""The documentation as a static site: `make site` writes results/site, which loads nothing from elsewhere.

The pages link to each other and to files of the repository. So they are staged in their places, with each linked file
and a list for each linked folder, and MkDocs fails on a link that leads nowhere.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from lab.base.paths import RESULTS, ROOT
from tools.docs.markdown import find_links

STAGE = RESULTS / "site-source"
SITE = RESULTS / "site"

CONFIG = {
    "site_name": "socketlab",
    "docs_dir": "pages",
    "site_dir": str(SITE),
    "use_directory_urls": False,
    # `font: false`: the pages load nothing from elsewhere.
    "theme": {"name": "material", "font": False, "features": ["navigation.indexes", "content.code.copy"]},
    # Not `offline`: its search on file:// takes a script from elsewhere.
    "plugins": ["search"],
    "extra": {"generator": False},
    "markdown_extensions": ["tables", "fenced_code", "toc", "pymdownx.superfences"],
    "validation": {"links": {"anchors": "warn", "unrecognized_links": "warn"}},
}


def list_pages() -> list[Path]:
    """Return the pages, relative to the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT) for path in found)


def stage(folder: Path) -> None:
    """Copy the pages and what they link to into a folder."""
    for page in list_pages():
        copy(page, folder)
        for link in find_links((ROOT / page).read_text(encoding="utf-8")):
            target = (ROOT / page).parent / link.partition("#")[0]
            if "://" in link or link.startswith(("#", "mailto:")) or not target.exists():
                continue
            path = target.resolve().relative_to(ROOT)
            if target.is_dir():
                list_folder(path, folder)
            elif path.suffix != ".md":
                copy(path, folder)


def copy(path: Path, folder: Path) -> None:
    """Copy a file of the repository to the same place in a folder."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / path, folder / path)


def list_folder(path: Path, folder: Path) -> None:
    """Write a page that lists the files of a folder, and copy these."""
    names = sorted(item.name for item in (ROOT / path).iterdir() if item.is_file())
    for name in names:
        copy(path / name, folder)
    if "README.md" not in names:
        lines = [f"# {path}", "", *(f"* [{name}]({name})" for name in names), ""]
        (folder / path / "index.md").write_text("\n".join(lines), encoding="utf-8")


def find_external(folder: Path) -> list[str]:
    """Return the scripts, styles, fonts and pictures that pages of a site load from elsewhere."""
    pattern = re.compile(r"""(?:<(?:script|img|iframe)[^>]*\ssrc|<link[^>]*\shref)=["']?(?:https?:)?(//[^"' >]+)""")
    return sorted(
        {found for page in folder.rglob("*.html") for found in pattern.findall(page.read_text(encoding="utf-8"))}
    )


def main() -> int:
    """Build the site; returns the exit code of MkDocs, or 1 if a page loads something from elsewhere."""
    shutil.rmtree(STAGE, ignore_errors=True)
    stage(STAGE / str(CONFIG["docs_dir"]))
    (STAGE / "mkdocs.yml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    mkdocs = ROOT / ".venv" / "docs" / "bin" / "mkdocs"
    command: list[str | Path] = [mkdocs, "build", "--quiet", "--strict", "--config-file", STAGE / "mkdocs.yml"]
    done = subprocess.run(command, check=False)  # noqa: S603 - it is in .venv
    if done.returncode:
        return done.returncode
    external = find_external(SITE)
    for address in external:
        print(f"a page loads {address}", file=sys.stderr)
    return 1 if external else 0


if __name__ == "__main__":
    sys.exit(main())
