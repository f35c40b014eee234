"""The lab's own CA, and the certificates that it signs: one for all servers, one for all clients.

They are in `.lab/tls` of the clone, for this user alone. The first `up` creates them, a later one renews them before
they expire. If the certificate lacks a new model, the same CA signs another one. The keys are not worth stealing:
nothing outside the lab trusts this CA.
"""

import fcntl
import json
import time
from collections.abc import Iterable
from pathlib import Path

from lab.base.errors import LabError
from lab.base.paths import ROOT

DIRECTORY = ROOT / ".lab" / "tls"
CA, SERVER, CLIENT = "ca.pem", "server.pem", "client.pem"

# The names and the end of the certificates, so that the usual case needs no library to read a certificate.
_ISSUED = "issued.json"
_CA_KEY = "ca.key.pem"
# The longest lifetime that browsers accept; and the time before its end at which a certificate is renewed.
_VALID_SECONDS = 397 * 86400
_RENEW_SECONDS = 7 * 86400
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def ensure_certificates(names: Iterable[str], directory: Path = DIRECTORY) -> Path:
    """Create or renew certificates so that there are valid ones for these host names.

    Returns:
        The directory with ca.pem (a certificate), server.pem and client.pem (key and certificate each).

    Raises:
        LabError: the files cannot be written.
    """
    wanted = sorted({*names, *_LOOPBACK})
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Several labs may start at the same time.
        with (directory.parent / "tls.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            issued = _read_names(directory)
            if not set(wanted) <= issued:
                # Earlier names are kept: another lab of this clone may use another compose file.
                _create(directory, sorted({*wanted, *issued}), new_ca=not issued)
    except OSError as error:
        raise LabError(f"the certificates cannot be written: {error.filename}: {error.strerror}") from None
    return directory


def _read_names(directory: Path) -> set[str]:
    """Return the host names in the certificates; none if a file is missing or the certificates expire soon."""
    try:
        issued = json.loads((directory / _ISSUED).read_text())
        names, expires = issued["names"], float(issued["expires"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()
    is_whole = all((directory / name).exists() for name in (CA, _CA_KEY, SERVER, CLIENT))
    return set(names) if is_whole and expires - _RENEW_SECONDS > time.time() else set()


def _create(directory: Path, names: list[str], *, new_ca: bool) -> None:
    # Needed rarely, and the library behind it takes as long to import as the rest of the lab.
    from lab.servers.ca import create_ca, issue

    directory.mkdir(mode=0o700, exist_ok=True)
    if new_ca:
        expires = time.time() + _VALID_SECONDS
        ca, ca_key = create_ca(expires)
        _write(directory / CA, ca)
        _write(directory / _CA_KEY, ca_key, mode=0o400)
    else:
        # The CA stays, so running servers and clients still trust each other.
        expires = float(json.loads((directory / _ISSUED).read_text())["expires"])
        ca, ca_key = (directory / CA).read_bytes(), (directory / _CA_KEY).read_bytes()
    server, client = issue(ca, ca_key, names, expires)
    _write(directory / SERVER, server)
    # OpenSSL opens the file twice, for the certificate and for its key: a client that runs must not see two of them.
    if new_ca:
        _write(directory / CLIENT, client)
    _write(directory / _ISSUED, json.dumps({"names": names, "expires": expires}).encode())


def _write(path: Path, content: bytes, mode: int = 0o444) -> None:
    """Write a file in one step. Containers read all but the CA's key, as another user; the folder is private."""
    part = path.with_name(f".{path.name}")
    part.unlink(missing_ok=True)
    part.write_bytes(content)
    part.chmod(mode)
    part.replace(path)
