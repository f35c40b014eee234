"""All tables of the web UI agree after a reset, an edit, a stop and another start, with and without workers."""

import threading

import pytest

from tests.support.waiting import wait_until

PONG = b"+PONG\r\n"


@pytest.fixture
def going():
    """The event while the server answers."""
    event = threading.Event()
    event.set()
    yield event
    event.set()


@pytest.fixture
def url(open_server, going):
    busy = threading.Event()

    def behave(connection):
        while connection.recv(100):
            going.wait()
            busy.wait(0.002)  # so that the load leaves the cores to the page
            connection.sendall(PONG)

    with open_server(behave) as (host, port):
        yield f"tcp://{host}:{port}"


def read_tables(page):
    """Return (requests, failures) of Locust's table and of the lab's, from one response."""
    found = page.statistics()
    ours = next(item["data"] for item in found["extended_stats"] if item["key"] == "times")
    theirs = [row for row in found["stats"] if row["name"] != "Aggregated"]
    failed = sum(row["failed"] for row in ours)
    return (
        (sum(row["num_requests"] for row in theirs), sum(row["num_failures"] for row in theirs)),
        (failed + sum(row["answered"] for row in ours), failed),
        found["state"],
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_tables_agree_after_reset_edit_stop_and_start(workers, url, going, open_ui):
    asked = {"timeout": 600, "spawn_rate": 100, "models": "it", "workload": "ping"}
    with open_ui(url, workers=workers) as page:

        def wait_for(condition):
            """Read the page until a condition is true; check that each response agrees."""

            def look():
                theirs, ours, state = read_tables(page)
                assert theirs == ours
                return condition(theirs[0], state) and theirs

            return wait_until(look)

        page.post("/swarm", user_count=1, **asked)
        wait_for(lambda requests, state: requests > 100)
        # Nothing more is answered, so that the reset shows; a worker's reports are seconds apart.
        going.clear()
        wait_for(lambda requests, state: page.post("/stats/reset") and requests == 0)
        going.set()
        page.post("/swarm", user_count=2, **asked)
        wait_for(lambda requests, state: requests > 100)
        page.post("/stop")
        wait_for(lambda requests, state: state == "stopped")
        page.post("/stats/reset")
        wait_for(lambda requests, state: True)
        page.post("/swarm", user_count=1, **asked)
        wait_for(lambda requests, state: requests > 100 and state == "running")
