"""The lab's CA and certificates: made once, and renewed if necessary."""

import json
import ssl
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.servers.certificates import CA, CLIENT, SERVER, ensure_certificates


def test_ca_is_made_once_and_kept_private(tmp_path: Path) -> None:
    directory = ensure_certificates(["a_model"], tmp_path / "lab" / "tls")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert {CA, SERVER, CLIENT} <= set(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    ensure_certificates(["a_model"], directory)
    ensure_certificates([], directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert [path.name for path in directory.parent.iterdir() if path.is_dir()] == ["tls"]


def test_new_model_renews_the_server_certificate_only(tmp_path: Path) -> None:
    directory = ensure_certificates(["one"], tmp_path / "tls")
    ca, before = (directory / CA).read_bytes(), (directory / SERVER).read_bytes()
    ensure_certificates(["two"], directory)
    after = (directory / SERVER).read_bytes()
    assert after != before
    assert (directory / CA).read_bytes() == ca  # clients and running servers continue to trust it
    ensure_certificates(["one"], directory)
    assert (directory / SERVER).read_bytes() == after
    client = ssl.create_default_context(cafile=str(directory / CA))
    for name in ("one", "two"):
        assert shake(server_context(directory), client, name)
    (directory / SERVER).chmod(0o600)
    (directory / SERVER).write_bytes(before)
    assert shake(server_context(directory), client, "one")


def test_client_certificate_stays_while_clients_may_read_it(tmp_path: Path) -> None:
    directory = ensure_certificates(["a"], tmp_path / "tls")
    client, server = (directory / CLIENT).read_bytes(), (directory / SERVER).read_bytes()
    ensure_certificates(["b"], directory)
    assert (directory / CLIENT).read_bytes() == client
    assert (directory / SERVER).read_bytes() != server


@pytest.mark.parametrize("defect", ["expired", "cut", "missing"])
def test_unusable_certificate_is_renewed(tmp_path: Path, defect: str) -> None:
    directory = ensure_certificates(["one"], tmp_path / "tls")
    before = (directory / SERVER).read_bytes()
    issued = directory / "issued.json"
    if defect == "expired":
        issued.chmod(0o644)
        issued.write_text(json.dumps(json.loads(issued.read_text()) | {"expires": 0}))
    elif defect == "cut":
        issued.chmod(0o644)
        issued.write_text("{")
    else:
        (directory / CA).unlink()
    ensure_certificates(["one"], directory)
    assert (directory / SERVER).read_bytes() != before


@pytest.mark.parametrize(("days", "is_renewed"), [(7.1, False), (6.9, True), (-0.1, True)])
def test_certificate_is_renewed_a_week_before_its_end(tmp_path: Path, days: float, is_renewed: bool) -> None:
    """A lab may be up for days: the certificate with which it starts must not expire meanwhile."""
    directory = ensure_certificates(["one"], tmp_path / "tls")
    before = (directory / CA).read_bytes(), (directory / SERVER).read_bytes()
    issued = directory / "issued.json"
    issued.chmod(0o644)
    issued.write_text(json.dumps(json.loads(issued.read_text()) | {"expires": time.time() + days * 86400}))
    ensure_certificates(["one"], directory)
    # The CA expires with it.
    assert ((directory / CA).read_bytes() != before[0], (directory / SERVER).read_bytes() != before[1]) == (
        is_renewed,
        is_renewed,
    )


def test_certificates_pass_strict_verification(tmp_path: Path) -> None:
    """Python 3.13 verifies strictly (RFC 5280) by default; this enables it in 3.11."""
    directory = ensure_certificates(["a_model"], tmp_path / "tls")
    server = server_context(directory)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(directory / CA)
    client = ssl.create_default_context(cafile=str(directory / CA))
    client.load_cert_chain(directory / CLIENT)
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    for host in ("a_model", "localhost", "127.0.0.1", "::1"):
        assert shake(server, client, host)
    assert stat.S_IMODE((directory / "ca.key.pem").stat().st_mode) == 0o400


def server_context(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / SERVER)
    return context


def shake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> bool:
    """Return whether a handshake succeeds and both sides got the certificates that they requested."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=host)
    done = 0
    for side in (theirs, ours, theirs, ours):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
            done += 1
    seen = bool(theirs.getpeercert()) and (server.verify_mode is ssl.CERT_NONE or bool(ours.getpeercert()))
    return done == 2 and seen


def test_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=str(tmp_path)):
        ensure_certificates(["one"], tmp_path / "file" / "tls")
