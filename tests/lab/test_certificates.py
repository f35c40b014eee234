"""The lab's own CA: made once, made anew when it has to be."""

import json
import ssl
import stat
from pathlib import Path

import pytest

from lab.certificates import CA, CLIENT, SERVER, provide
from lab.errors import LabError


def test_is_made_once_and_kept_private(tmp_path: Path) -> None:
    directory = provide(["a_model"], tmp_path / "lab" / "tls")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert {CA, SERVER, CLIENT} <= set(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    provide(["a_model"], directory)
    provide([], directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert [path.name for path in directory.parent.iterdir() if path.is_dir()] == ["tls"]


def test_is_made_anew_for_a_model_that_has_come_and_keeps_the_others(tmp_path: Path) -> None:
    directory = provide(["one"], tmp_path / "tls")
    provide(["two"], directory)
    after = (directory / SERVER).read_bytes()
    provide(["one"], directory)
    assert (directory / SERVER).read_bytes() == after


@pytest.mark.parametrize("harm", ["expired", "cut", "missing"])
def test_is_made_anew_when_it_is_of_no_use(tmp_path: Path, harm: str) -> None:
    directory = provide(["one"], tmp_path / "tls")
    before = (directory / SERVER).read_bytes()
    issued = directory / "issued.json"
    if harm == "expired":
        issued.chmod(0o644)
        issued.write_text(json.dumps(json.loads(issued.read_text()) | {"expires": 0}))
    elif harm == "cut":
        issued.chmod(0o644)
        issued.write_text("{")
    else:
        (directory / CA).unlink()
    provide(["one"], directory)
    assert (directory / SERVER).read_bytes() != before


def test_stands_up_to_a_strict_client(tmp_path: Path) -> None:
    """Python 3.13 checks certificates strictly (RFC 5280) by default; here 3.11 is told to."""
    directory = provide(["a_model"], tmp_path / "tls")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(directory / CA)
    client = ssl.create_default_context(cafile=str(directory / CA))
    client.load_cert_chain(directory / CLIENT)
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    for host in ("a_model", "localhost", "127.0.0.1", "::1"):
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = server.wrap_bio(to_server, to_client, server_side=True)
        theirs = client.wrap_bio(to_client, to_server, server_hostname=host)
        done = 0
        for side in (theirs, ours, theirs, ours):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        assert done == 2
        assert theirs.getpeercert()
        assert ours.getpeercert()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=str(tmp_path)):
        provide(["one"], tmp_path / "file" / "tls")
