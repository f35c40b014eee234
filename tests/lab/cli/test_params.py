"""What options and arguments accept, and the names that a shell completes."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from lab.base.paths import RESULTS
from lab.cli.main import cli
from lab.cli.params import DURATION, MODEL, Duration, Share, models_argument, out_option, split_names
from lab.servers.catalogue import Catalogue


def test_duration_is_in_seconds() -> None:
    assert DURATION.convert("1.5s", None, None) == 1.5
    assert DURATION.convert("1us", None, None) == 1e-6
    assert DURATION.convert(0.25, None, None) == 0.25  # a default


@pytest.mark.parametrize(
    ("allowed", "text", "said"),
    [
        ({}, "0s", "'0s' is not above 0"),
        ({}, "61m", "'61m' is too long: at most 1h"),
        ({}, "3601s", "'3601s' is too long: at most 1h"),
        ({}, "5", "'5' has no unit: write 5s or 5ms"),
        ({}, "five", "'five' is not a duration such as 5s"),
        ({"shortest": 0.1}, "99ms", "'99ms' is too short: at least 100ms"),
        ({"shortest": 0.1}, "0s", "'0s' is too short: at least 100ms"),
        ({"longest": 90.0}, "2m", "'2m' is too long: at most 90s"),
    ],
)
def test_duration_that_is_not_allowed_is_refused_with_the_limit(allowed: dict[str, Any], text: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        Duration(**allowed).convert(text, None, None)


@pytest.mark.parametrize(
    ("allowed", "text", "seconds"),
    [
        ({}, "1h", 3600.0),
        ({"shortest": 0.0}, "0s", 0.0),
        ({"shortest": 0.1}, "100ms", 0.1),
        ({"longest": 90.0}, "90s", 90.0),
        ({"longest": 7200.0}, "2h", 7200.0),
    ],
)
def test_limits_of_a_duration_are_allowed(allowed: dict[str, Any], text: str, seconds: float) -> None:
    assert Duration(**allowed).convert(text, None, None) == seconds


def test_share_is_a_ratio() -> None:
    assert Share().convert("12.5%", None, None) == 0.125
    assert Share().convert("0.1", None, None) == 0.1
    assert Share().convert(0.25, None, None) == 0.25  # a default
    with pytest.raises(click.BadParameter, match="'ten' is not a share such as 10%"):
        Share().convert("ten", None, None)


def complete(*words: str) -> list[str]:
    """Return what the last word may become."""
    *before, last = words
    return [found.value for found in ShellComplete(cli, {}, "lab", "_LAB_COMPLETE").get_completions(before, last)]


CATALOGUE = Catalogue.load()


def test_model_is_completed_in_the_order_of_the_catalogue() -> None:
    assert complete("check", "") == list(CATALOGUE.names)
    assert complete("check", "threads_n") == ["threads_nogil"]
    assert complete("check", "none_such") == []
    # Not twice.
    assert complete("check", "threads_nogil", "threads_n") == []
    assert complete("check", "prefork", "threads_n") == ["threads_nogil"]


def test_server_of_the_gallery_is_completed_where_it_can_be_used() -> None:
    assert complete("up", "gallery_f") == ["gallery_ftp"]
    assert complete("check", "gallery_f") == []
    # One name, which may be that of a model.
    assert complete("load-file", "threads_n") == ["threads_nogil"]


def test_profile_is_completed() -> None:
    assert complete("up", "--profile", "") == list(CATALOGUE.profiles)


def test_nothing_is_completed_without_a_compose_file(tmp_path: Path) -> None:
    assert complete("--file", str(tmp_path / "none.yaml"), "check", "") == []


def test_results_are_stored_in_the_projects_folder_by_default(tmp_path: Path) -> None:
    @click.command
    @out_option
    def command(out: Path) -> None:
        click.echo(repr(out))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, arguments)

    assert run().output.strip() == repr(RESULTS)
    assert run("--out", str(tmp_path)).output.strip() == repr(tmp_path)
    file = tmp_path / "file"
    file.touch()
    refused = run("--out", str(file))
    assert (refused.exit_code, "is a file" in refused.output) == (2, True)
    assert "--out DIR  Results folder.  [default: results]" in run("--help").output


def test_any_number_of_models_can_be_named() -> None:
    @click.command
    @models_argument
    def command(models: tuple[str, ...]) -> None:
        click.echo(repr(models))

    assert [CliRunner().invoke(command, names).output.strip() for names in ([], ["b"], ["b", "a"])] == [
        "()",
        "('b',)",
        "('b', 'a')",
    ]
    assert "[MODEL]..." in CliRunner().invoke(command, ["--help"]).output
    assert command.params[0].type is MODEL


def test_names_are_separated_by_commas() -> None:
    assert split_names(" a,b ,, c,") == ["a", "b", "c"]
    assert split_names("") == []
