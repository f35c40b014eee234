"""The site of the documentation: what is staged for it, and that its pages load nothing from elsewhere."""

from pathlib import Path

from tools.docs.site import find_external, list_pages, stage


def test_what_pages_link_to_is_staged(tmp_path: Path) -> None:
    stage(tmp_path)
    staged = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert set(list_pages()) <= staged
    assert {Path("LICENSE"), Path("docs/images/xray.svg"), Path("docs/examples/perl_echo/index.md")} <= staged


def test_addresses_elsewhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="//a.example/x.css"><script defer src="https://b.example/y.js"></script>'
        '<a href="https://c.example/">c</a><img src="here.png"><script src="assets/z.js"></script>'
    )
    assert find_external(tmp_path) == ["//a.example/x.css", "//b.example/y.js"]
