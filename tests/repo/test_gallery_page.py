"""docs/gallery/ is made from the exhibits and from recordings of exactly this code."""

from dataclasses import replace

import pytest

from lab.servers.catalogue import Catalogue
from lab.tour.accounts import ACCOUNTS, DOMAIN
from lab.tour.dialogue import mask
from lab.tour.normalise import normalise
from lab.tour.registry import load
from tools.docs.gallery_page import INDEX, RecordError, find_stale, read_pages, read_records, render

EXHIBITS = load()


def test_pages_are_up_to_date() -> None:
    runs, _ = read_records()
    assert read_pages() == render(EXHIBITS, runs, Catalogue.load()), "run `make docs`"


def test_recordings_are_of_the_current_code() -> None:
    assert find_stale(EXHIBITS) == [], "run `make gallery`"


def test_changed_code_makes_a_recording_stale() -> None:
    changed = [replace(EXHIBITS[0], source=f"{EXHIBITS[0].source}\n# changed\n"), *EXHIBITS[1:]]
    assert find_stale(changed) == [EXHIBITS[0].module]


def test_module_without_a_recording_is_named() -> None:
    runs, _ = read_records()
    del runs["ftplib"]
    with pytest.raises(RecordError, match="no recording of ftplib"):
        render(EXHIBITS, runs, Catalogue.load())


def test_recordings_are_complete_normalised_and_without_secrets() -> None:
    runs, _ = read_records()
    for run in runs.values():
        assert run.held
        assert run.output
        assert normalise(run) == run
        for message in run.messages:
            assert mask(message.text) == message.text


def test_index_names_accounts_and_servers() -> None:
    page = read_pages()[INDEX]
    for account in ACCOUNTS:
        assert f"| `{account.user}` | `{account.password}` | `{account.address}` |" in page
    assert f"`{DOMAIN}`" in page
    for server in Catalogue.load().gallery:
        assert f"| `{server.name}` |" in page


def test_page_names_each_failure_of_its_exhibit() -> None:
    pages = read_pages()
    runs, _ = read_records()
    for module, run in runs.items():
        for failure in run.failures:
            assert f"| {failure.what} | `{failure.raised}` |" in pages[module]


def test_servers_that_exhibits_name_are_in_the_catalogue() -> None:
    hosts = set(Catalogue.load().hosts)
    for exhibit in EXHIBITS:
        assert exhibit.servers, exhibit.module
        assert set(exhibit.servers) <= hosts, exhibit.module
