"""`lab new`: the files that it writes, and the names that it refuses."""

import ast
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.servers import scaffold
from lab.servers.catalogue import Catalogue
from lab.servers.scaffold import BLANK, create


def test_new_model_starts_with_the_code_of_plain_socket(clone: Path) -> None:
    """The code is read from the clone, not from a copy that becomes outdated."""
    models = clone / "services" / "models"
    plain = models / "plain_socket.py"
    plain.write_text(plain.read_text() + "\n\nCHANGED = 1\n")
    project = (clone / "pyproject.toml").read_bytes()
    create("my_way", None, clone)
    assert (clone / "pyproject.toml").read_bytes() == project
    new = (models / "my_way.py").read_text()
    assert dump_code(new) == dump_code(plain.read_text())
    assert BLANK in (ast.get_docstring(ast.parse(new)) or "")


def dump_code(source: str) -> str:
    """Return the code of a module without its docstring."""
    return "\n".join(map(ast.dump, ast.parse(source).body[1:]))


def test_library_gets_its_extra(clone: Path) -> None:
    steps = create("my_way", "curio", clone)
    assert [step.partition(":")[0] for step in steps] == [
        "write services/models/my_way.py",
        "compose.yaml",
        "make lock",
        "make docs",
    ]
    assert Catalogue.load(clone / "compose.yaml")["my_way"].extra == "curio"
    assert '\ncurio = ["curio"]\n' in (clone / "pyproject.toml").read_text()
    assert "EXTRA: curio" in (clone / "compose.yaml").read_text()


def test_library_that_other_models_need_has_its_extra_already(clone: Path) -> None:
    project = (clone / "pyproject.toml").read_text()
    assert "\ntrio = [" in project
    steps = create("my_way", "trio", clone)
    assert (clone / "pyproject.toml").read_text() == project
    assert Catalogue.load(clone / "compose.yaml")["my_way"].extra == "trio"
    # Each step names the file that it is about.
    assert steps[1] == f"compose.yaml: replace {BLANK} in the stanza of my_way, and set its limits"
    assert "requirements/trio.txt" in steps[2]
    assert "docs/models/my_way.md" in steps[3]
    assert "lab check my_way," in steps[3]


def test_invalid_name_is_refused_and_writes_nothing(clone: Path) -> None:
    # One whose stanza is still to be written.
    (clone / "services" / "models" / "half_made.py").touch()
    before = {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()}
    for name, extra, said in (
        ("My-Way", None, "not a valid model name"),
        ("class", None, "not a valid model name"),
        ("x" * 41, None, "not a valid model name"),
        ("socket", None, "the name of a module"),
        ("curio", "curio", "the name of a module"),
        ("plain_socket", None, "exists already"),
        ("peer_redis", None, "exists already"),
        ("half_made", None, "exists already"),
        ("my_way", "no such thing", "not the name of a distribution"),
    ):
        with pytest.raises(LabError, match=said):
            create(name, extra, clone)
    assert {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()} == before


def test_place_that_is_missing_is_named_and_nothing_is_written(clone: Path) -> None:
    compose = clone / "compose.yaml"
    compose.write_text(compose.read_text().replace("  # Reference peers:", "  # Peers:"))
    with pytest.raises(LabError, match=r"no single line starts with '  # Reference peers:'"):
        create("my_way", None, clone)
    assert not (clone / "services" / "models" / "my_way.py").exists()


@pytest.mark.parametrize("places", [[], ["  # Reference peers: a", "  # Reference peers: b"]], ids=["none", "two"])
def test_compose_file_without_a_single_place_for_a_model_is_left_as_it_is(tmp_path: Path, places: list[str]) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("\n".join(["services:", *places, ""]))
    with pytest.raises(LabError, match=r"compose\.yaml: no single line starts with '  # Reference peers:'"):
        scaffold._insert(path, "  # Reference peers:", "more\n")
    path.write_text("services:\n  # Reference peers: a\n")
    assert scaffold._insert(path, "  # Reference peers:", "more\n") == "services:\nmore\n  # Reference peers: a\n"
