"""A short run of the live fuzzer: every model, over three transports, compared with the reference."""

from fuzz.live import bombard
from services.protocol import Address
from tests.faults.conftest import CATALOGUE
from tests.support.servers import Server

# To each model, the same in each run; `make fuzz` sends more.
INPUTS = 300


def addresses(server: Server) -> list[Address]:
    return [server.address("command", transport) for transport in ("tcp", "unix", "udp")]


def test_model_answers_as_the_reference_does(roomy: Server) -> None:
    overlaps = "overlap" not in CATALOGUE[roomy.description["model"]].limits
    found = bombard(addresses(roomy), seed=7, inputs=INPUTS, overlaps=overlaps)
    assert found.inputs == INPUTS
    assert found.compared > 200
