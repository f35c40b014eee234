"""The lab's CA and certificates: made once, and renewed if necessary."""

import datetime
import fcntl
import json
import ssl
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.base.errors import LabError
from lab.servers.ca import create_ca, issue
from lab.servers.certificates import CA, CLIENT, SERVER, ensure_certificates
from tests.support.waiting import wait_until

_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign"),
)


def test_ca_is_made_once_and_kept_private(tmp_path: Path) -> None:
    directory = ensure_certificates(["a_model"], tmp_path / "clone" / "lab" / "tls")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert {CA, SERVER, CLIENT} <= set(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (directory.parent, directory)] == [0o700, 0o700]
    # Servers in containers read them as another user.
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {name: 0o400 if name == "ca.key.pem" else 0o444 for name in before}
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


def test_certificate_for_a_new_model_ends_with_its_ca(tmp_path: Path) -> None:
    """The CA stays. A later end would put off its renewal until after no client trusts it any more."""
    directory = ensure_certificates(["one"], tmp_path / "tls")
    expires = int(time.time()) + 30 * 86400
    set_end(directory, expires)
    ensure_certificates(["two"], directory)
    assert json.loads((directory / "issued.json").read_text())["expires"] == expires
    certificate = x509.load_pem_x509_certificate((directory / SERVER).read_bytes())
    assert certificate.not_valid_after_utc.timestamp() == expires


def test_names_are_noted_after_their_certificate(tmp_path: Path) -> None:
    """After a renewal that has failed half-way, the next one must not take it for done."""
    directory = ensure_certificates(["one"], tmp_path / "tls")
    (directory / ".server.pem").mkdir()
    with pytest.raises(LabError, match=r"server\.pem"):
        ensure_certificates(["two"], directory)
    (directory / ".server.pem").rmdir()
    ensure_certificates(["two"], directory)
    assert shake(server_context(directory), ssl.create_default_context(cafile=str(directory / CA)), "two")


def test_client_certificate_stays_while_clients_may_read_it(tmp_path: Path) -> None:
    directory = ensure_certificates(["a"], tmp_path / "tls")
    client, server = (directory / CLIENT).read_bytes(), (directory / SERVER).read_bytes()
    ensure_certificates(["b"], directory)
    assert (directory / CLIENT).read_bytes() == client
    assert (directory / SERVER).read_bytes() != server


def test_certificate_for_more_names_ends_with_the_ca_that_stays(tmp_path: Path) -> None:
    directory = ensure_certificates(["a"], tmp_path / "tls")
    issued = directory / "issued.json"
    # As of a CA that is ten days from its end.
    expires = int(time.time()) + 10 * 86_400
    issued.chmod(0o644)
    issued.write_text(json.dumps({"names": json.loads(issued.read_text())["names"], "expires": expires}))
    authority = (directory / CA).read_bytes()
    ensure_certificates(["b"], directory)
    assert (directory / CA).read_bytes() == authority
    assert json.loads(issued.read_text())["expires"] == expires
    server = x509.load_pem_x509_certificate((directory / SERVER).read_bytes())
    assert server.not_valid_after_utc.timestamp() == expires


@pytest.mark.parametrize("defect", ["expired", "cut", "no UTF-8", CA, "ca.key.pem", SERVER, CLIENT, "issued.json"])
def test_unusable_certificate_is_renewed(tmp_path: Path, defect: str) -> None:
    directory = ensure_certificates(["one"], tmp_path / "tls")
    before = (directory / SERVER).read_bytes()
    issued = directory / "issued.json"
    if defect == "expired":
        set_end(directory, 0)
    elif defect == "cut":
        issued.chmod(0o644)
        issued.write_text("{")
    elif defect == "no UTF-8":
        issued.chmod(0o644)
        issued.write_bytes(b"\xff")
    else:
        (directory / defect).unlink()
    ensure_certificates(["one"], directory)
    assert (directory / SERVER).read_bytes() != before
    assert {CA, "ca.key.pem", SERVER, CLIENT, "issued.json"} <= {path.name for path in directory.iterdir()}


@pytest.mark.usefixtures("far_from_utc")
def test_certificates_end_with_their_ca_and_begin_an_hour_ago() -> None:
    """A longer one would be refused from the end of the CA on; the clocks of two machines differ."""
    expires = time.time() + 3 * 86400
    pems = create_ca(expires)
    certificates = [pems[0], *issue(*pems, ["one"], expires)]
    now = datetime.datetime.now(datetime.UTC)
    for pem in certificates:
        certificate = x509.load_pem_x509_certificate(pem)
        assert certificate.not_valid_after_utc == datetime.datetime.fromtimestamp(int(expires), datetime.UTC)
        assert datetime.timedelta(minutes=59) < now - certificate.not_valid_before_utc < datetime.timedelta(minutes=65)


@pytest.mark.parametrize(("days", "is_renewed"), [(7.1, False), (6.9, True), (-0.1, True)])
def test_certificate_is_renewed_a_week_before_its_end(tmp_path: Path, days: float, is_renewed: bool) -> None:
    """A lab may be up for days: the certificate with which it starts must not expire meanwhile."""
    directory = ensure_certificates(["one"], tmp_path / "tls")
    before = (directory / CA).read_bytes(), (directory / SERVER).read_bytes()
    set_end(directory, time.time() + days * 86400)
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


def set_end(directory: Path, expires: float) -> None:
    """Note another end of the certificates, and of the CA, than theirs."""
    issued = directory / "issued.json"
    issued.chmod(0o644)
    issued.write_text(json.dumps(json.loads(issued.read_text()) | {"expires": expires}))


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


def test_certificates_are_valid_for_as_long_as_browsers_accept(tmp_path: Path) -> None:
    begin = time.time()
    directory = ensure_certificates([], tmp_path / "tls")
    expires = json.loads((directory / "issued.json").read_text())["expires"]
    assert 0 <= expires - 397 * 86_400 - begin <= time.time() - begin
    for name in (CA, SERVER, CLIENT):
        certificate = x509.load_pem_x509_certificate((directory / name).read_bytes())
        assert certificate.not_valid_after_utc.timestamp() == int(expires)


def test_certificates_have_the_extensions_of_rfc_5280() -> None:
    begin = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    ca, key = create_ca(4e9)
    server, client = issue(ca, key, ["a_b", "::1"], 4e9)
    shown = {}
    for text in (ca, server, client):
        certificate = x509.load_pem_x509_certificate(text)
        # Clocks differ.
        since = certificate.not_valid_before_utc + datetime.timedelta(minutes=60)
        assert begin <= since <= datetime.datetime.now(datetime.UTC)
        found = certificate.extensions
        usage = found.get_extension_for_class(x509.KeyUsage).value
        constraints = found.get_extension_for_class(x509.BasicConstraints).value
        shown[certificate.subject.rfc4514_string()] = (
            [name for name in _USAGES if getattr(usage, name)],
            (constraints.ca, constraints.path_length),
            [extension.oid._name for extension in found if extension.critical],
            [extension.oid._name for extension in found if not extension.critical][2:],
        )
    critical = ["basicConstraints", "keyUsage"]
    assert shown == {
        "CN=socketlab CA": (["key_cert_sign", "crl_sign"], (True, 0), critical, []),
        "CN=socketlab server": (
            *(["digital_signature"], (False, None), critical),
            ["extendedKeyUsage", "subjectAltName"],
        ),
        "CN=socketlab client": (["digital_signature"], (False, None), critical, ["extendedKeyUsage"]),
    }


def test_certificates_are_for_one_side_each_and_name_their_keys() -> None:
    ca, key = create_ca(4e9)
    read = [x509.load_pem_x509_certificate(text) for text in (ca, *issue(ca, key, ["a_b", "::1"], 4e9))]
    own = [x509.SubjectKeyIdentifier.from_public_key(each.public_key()).digest for each in read]
    assert len(set(own)) == 3

    sides = [list(each.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for each in read[1:]]
    assert sides == [[ExtendedKeyUsageOID.SERVER_AUTH], [ExtendedKeyUsageOID.CLIENT_AUTH]]
    for each, name in zip(read, own, strict=True):
        found = each.extensions
        assert found.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest == name
        assert found.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own[0]


def test_key_of_another_kind_signs_nothing() -> None:
    key = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="not an elliptic-curve key"):
        issue(create_ca(4e9)[0], key, ["one"], 4e9)


def test_labs_that_start_at_the_same_time_create_one_ca(tmp_path: Path) -> None:
    lock = tmp_path / "tls.lock"
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=ensure_certificates, args=[["one"], tmp_path / "tls"])
        thread.start()
        # A process that waits for a lock has an arrow there, proc_locks(5).
        waiting = f":{lock.stat().st_ino} "
        wait_until(
            lambda: (
                not thread.is_alive()
                or any("->" in line and waiting in line for line in Path("/proc/locks").read_text().splitlines())
            )
        )
        assert thread.is_alive()
        assert not (tmp_path / "tls").exists()
    thread.join()
    assert (tmp_path / "tls" / CA).exists()
