"""A short run of the live fuzzer: every model, over three transports, compared with the reference."""

from fuzz.live import bombard
from services.protocol import Address
from tests.faults.conftest import CATALOGUE
from tests.support.servers import Server

# Per model. Together with the fuzzing of the core (`tests/services/protocol/test_fuzz.py`), a minute.
SECONDS = 2.0


def addresses(server: Server) -> list[Address]:
    return [server.address("command", transport) for transport in ("tcp", "unix", "udp")]


def test_model_answers_as_the_reference_does(roomy: Server) -> None:
    overlaps = "overlap" not in CATALOGUE[roomy.description["model"]].limits
    found = bombard(addresses(roomy), seed=7, inputs=150, seconds=SECONDS, overlaps=overlaps)
    assert found.inputs >= 150
    assert found.compared > 100
