"""docs/gallery.md is made from the exhibits as they are, and from what they did when they were as they are."""

from dataclasses import replace

import pytest

from lab.servers.catalogue import Catalogue
from lab.tour.accounts import ACCOUNTS, DOMAIN
from lab.tour.dialogue import mask
from lab.tour.normalise import normalise
from lab.tour.registry import load
from tools.docs import gallery_page
from tools.docs.gallery_page import RecordError, find_stale, read_records, render

EXHIBITS = load()


def test_the_page_is_what_is_made_of_the_files_and_the_recordings() -> None:
    performances, _ = read_records()
    assert gallery_page.PAGE.read_text() == render(EXHIBITS, performances, Catalogue.load()), "run `make docs`"


def test_every_recording_was_made_with_the_code_as_it_is() -> None:
    assert find_stale(EXHIBITS) == [], "run `make gallery`"


def test_code_that_has_changed_since_is_noticed() -> None:
    changed = [replace(EXHIBITS[0], source=f"{EXHIBITS[0].source}\n# changed\n"), *EXHIBITS[1:]]
    assert find_stale(changed) == [EXHIBITS[0].module]


def test_a_module_that_was_never_recorded_is_named() -> None:
    performances, _ = read_records()
    del performances["ftplib"]
    with pytest.raises(RecordError, match="no recording of ftplib"):
        render(EXHIBITS, performances, Catalogue.load())


def test_recordings_are_whole_normal_and_without_secrets() -> None:
    performances, _ = read_records()
    for performance in performances.values():
        assert performance.held
        assert performance.output
        assert normalise(performance) == performance
        for message in performance.messages:
            assert mask(message.text) == message.text


def test_the_page_names_accounts_servers_and_every_failure() -> None:
    page = gallery_page.PAGE.read_text()
    for account in ACCOUNTS:
        assert f"| `{account.user}` | `{account.password}` | `{account.address}` |" in page
    assert f"`{DOMAIN}`" in page
    for server in Catalogue.load().gallery:
        assert f"| `{server.name}` |" in page
    performances, _ = read_records()
    for performance in performances.values():
        for failure in performance.failures:
            assert f"| {failure.what} | `{failure.raised}` |" in page


def test_servers_that_exhibits_name_are_in_the_catalogue() -> None:
    hosts = set(Catalogue.load().hosts)
    for exhibit in EXHIBITS:
        assert exhibit.servers, exhibit.module
        assert set(exhibit.servers) <= hosts, exhibit.module
