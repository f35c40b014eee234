"""Locust's web UI with two workers, as containers, and a person's way through it in a real browser."""

import csv
import io
from uuid import uuid4

import pytest

from lab import usage
from lab.backends.containers import Containers
from lab.browser import visit
from lab.catalogue import Catalogue
from lab.faults import applied
from lab.faults.scorecard import FAULTS
from lab.feed import feed
from lab.generator import open_generator
from lab.measurement import encode_targets

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

MODELS = ["asyncio_streams", "socketserver_threading"]


# Its browser's image is built once, from half a gigabyte of packages.
@pytest.mark.timeout(900)
def test_a_run_from_the_form_to_the_files(engine, find_of_project):
    backend = Containers(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(MODELS, timeout=60)
        environ = {"LAB_TARGETS": encode_targets(backend.targets())}
        own = {usage.VARIABLE: "stdin", "LAB_UI_LOGIN": "ann:secret"}
        arguments = ["--web-port", "8089", "--web-login", "--loglevel", "WARNING"]
        with (
            open_generator(backend, arguments, workers=2, environ=environ, own=own) as generator,
            feed(backend, MODELS, generator.main.process.stdin),
        ):
            # As `lab faults --now` does in another terminal.
            with applied(FAULTS["pause"], backend, MODELS[0]) as stamp:
                pass
            seen = visit(
                backend,
                f"http://{generator.main.host}:8089",
                choices={
                    "userCount": ["4"],
                    "spawnRate": ["100"],
                    "models": MODELS,
                    "workload": ["ping"],
                    "loop": ["open"],
                    "rate": ["200"],
                },
                login="ann:secret",
            )
    finally:
        backend.down()
        assert not find_of_project(backend.project)

    assert sorted(seen.options["models"]) == MODELS
    assert {"workload", "transport", "loop", "arrivals", "shape"} <= set(seen.options)
    assert seen.complaints == []
    for tab in ("Servers", "Microseconds"):
        assert all(sorted({row["model"] for row in rows}) == MODELS for rows in seen.readings[tab])
    ((fault,),) = seen.readings["Faults"]
    assert (fault["model"], fault["fault"], fault["from (UTC)"]) == (MODELS[0], "pause", stamp.begin[11:19])
    first, *_, last = seen.readings["Microseconds"]
    assert [int(row["answered"]) for row in last] > [int(row["answered"]) for row in first]
    for row in last:
        assert row["load"] == "ping\xa0tcp"
        # Some tens of microseconds at least, and no round milliseconds: they are what the tab is for.
        assert 10 < float(row["p50 µs"]) <= float(row["p99 µs"]) <= float(row["max µs"])
        assert row["failed"] == "0"
    assert any(float(row["p50 µs"]) % 1000 for row in last)
    for row in seen.readings["Servers"][-1]:
        assert float(row["memory MiB"]) > 1
        assert int(row["open descriptors"]) > 4
    assert seen.state == "stopped"

    times = list(csv.DictReader(io.StringIO(seen.files["Download percentiles in microseconds CSV"])))
    assert sorted({row["model"] for row in times}) == MODELS
    assert all(int(row["answered"]) and float(row["p50_us"]) > 10 for row in times)
    servers = list(csv.DictReader(io.StringIO(seen.files["Download what the servers use CSV"])))
    assert sorted(row["model"] for row in servers) == MODELS
    assert set(seen.pictures) == {"form", "light", "dark", "narrow"}
    assert all(picture.startswith(b"\x89PNG") for picture in seen.pictures.values())
