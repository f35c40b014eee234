"""Locust's web UI with two workers, as containers, used in a real browser."""

import csv
import io
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from lab.base.environ import ENV_FAULTS, ENV_TELEMETRY, ENV_UI_LOGIN
from lab.experiments.faults.remote_requests import FaultRequestReader
from lab.load.generator import open_generator
from lab.load.measurement import encode_targets
from lab.load.telemetry import send_telemetry
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from tools.browser import visit

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("gallery")]

MODELS = ["asyncio_streams", "socketserver_threading"]


# Its browser's image is built once, from half a gigabyte of packages.
@pytest.mark.timeout(900)
def test_web_ui_runs_from_the_form_to_the_files(engine, find_of_project):
    backend = Containers(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(MODELS, timeout=60)
        environ = {"LAB_TARGETS": encode_targets(backend.targets())}
        own = {ENV_TELEMETRY: "stdin", ENV_FAULTS: "pause,kill", ENV_UI_LOGIN: "ann:secret"}
        arguments = ["--web-port", "8089", "--web-login", "--loglevel", "WARNING"]
        said: list[str] = []
        with (
            open_generator(backend.helpers, arguments, workers=2, environ=environ, own=own) as generator,
            send_telemetry(backend, MODELS, generator.main),
            ThreadPoolExecutor() as pool,
        ):
            requests = FaultRequestReader(backend, MODELS, generator.main, said.append)
            seeing = pool.submit(
                visit,
                backend.helpers,
                f"http://{generator.main.host}:8089",
                choices={
                    "userCount": ["4"],
                    "spawnRate": ["100"],
                    "models": MODELS,
                    "workload": ["ping"],
                    "loop": ["open"],
                    "rate": ["200"],
                    "fault": ["pause"],
                    "faultAfter": ["0.5"],
                    "faultFor": ["1"],
                },
                login="ann:secret",
            )
            # Faults are applied in the main thread, as `lab load` does.
            while not seeing.done():
                requests.advance()
                time.sleep(0.1)
            seen = seeing.result()
    finally:
        backend.down()
        assert not find_of_project(backend.project)

    assert sorted(seen.options["models"]) == MODELS
    assert {"workload", "transport", "loop", "arrivals", "shape"} <= set(seen.options)
    assert seen.complaints == []
    for tab in ("Servers", "Microseconds"):
        assert all(sorted({row["model"] for row in rows}) == MODELS for rows in seen.readings[tab])
    assert seen.options["fault"] == ["none", "pause", "kill"]
    (faults,) = seen.readings["Faults"]
    assert sorted((row["model"], row["fault"], row["remark"]) for row in faults) == [
        (name, "pause", "") for name in MODELS
    ]
    assert f"{', '.join(MODELS)}: healed" in [line.replace(", ".join(MODELS[::-1]), ", ".join(MODELS)) for line in said]
    first, *later = seen.readings["Microseconds"]
    # On a busy machine, the last seconds may have no reply.
    last = next(rows for rows in reversed(later) if all(row["p50 µs"][0].isdigit() for row in rows))
    assert [int(row["answered"]) for row in last] > [int(row["answered"]) for row in first]
    for row in last:
        assert row["load"] == "ping\xa0tcp"
        # At least some tens of microseconds, and not whole milliseconds: the tab exists to show them.
        assert 10 < float(row["p50 µs"]) <= float(row["p99 µs"]) <= float(row["max µs"])
    assert any(float(row["p50 µs"]) % 1000 for row in last)
    for row in seen.readings["Servers"][-1]:
        assert float(row["memory MiB"]) > 1
        assert int(row["open descriptors"]) > 4
    assert seen.state == "stopped"

    # The form has the models in the catalogue's order.
    asked, started = seen.live["said"]
    assert asked == f"Asked for pause on {', '.join(MODELS[::-1])}."
    assert started == "Running: session over tcp, open loop."
    assert len(seen.live["labels"]) == 7
    assert all(name in label for label in seen.live["labels"] for name in MODELS)
    assert seen.live["labels"][0].startswith("Requests per second. ")
    assert seen.live["chosen"] == MODELS[:1]
    assert seen.live["wide"] == []

    times = list(csv.DictReader(io.StringIO(seen.files["Download percentiles in microseconds CSV"])))
    # The workload that was started last may have had no time yet.
    times = [row for row in times if int(row["answered"])]
    assert sorted({row["model"] for row in times}) == MODELS
    assert all(float(row["p50_us"]) > 10 for row in times)
    servers = list(csv.DictReader(io.StringIO(seen.files["Download server usage CSV"])))
    assert sorted(row["model"] for row in servers) == MODELS
    live = {f"live {width} {light}" for width in (400, 1280, 1920) for light in ("light", "dark")}
    assert set(seen.pictures) == {"form", "light", "dark", "narrow"} | live
    assert all(picture.startswith(b"\x89PNG") for picture in seen.pictures.values())
