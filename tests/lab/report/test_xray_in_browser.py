"""The page of `lab xray` in a real browser, without a network: of the recordings in docs/data."""

from uuid import uuid4

import pytest

from lab.base.paths import ROOT
from lab.experiments.xray.recording import read_recordings
from lab.report.xray_page import render
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from tools.browser import read_page

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

MODELS = ("plain_socket", "asyncio_streams", "socketserver_threading", "prefork")


# The browser's image is built once, from half a gigabyte of packages.
@pytest.mark.timeout(900)
def test_page_fits_every_window_and_asks_for_nothing(engine, find_of_project) -> None:
    recorded = read_recordings(ROOT / "docs" / "data" / "xray.json")
    chosen = [each for each in recorded if each.model in MODELS]
    assert len(chosen) == 2 * len(MODELS)
    backend = Containers(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        seen = read_page(backend.helpers, render(chosen, missing={"a_model": "it ended"}))
    finally:
        backend.down()
        assert not find_of_project(backend.project)
    assert seen.complaints == []
    assert seen.requested == []
    assert seen.wide == []
    assert all(picture.startswith(b"\x89PNG") for picture in seen.pictures.values())
    assert seen.links == [f"index.html#{each.model}-{scene}" for scene in ("sleep", "slow") for each in chosen[::2]]
