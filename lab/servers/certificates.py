"""The lab's own CA, and what it has signed: a certificate for all servers and one for clients.

In `.lab/tls` of the clone, for this user alone. Made at the first `up`, and made anew when it is about to expire; when
a model has come that the certificate does not name, the same CA signs another. Nothing here is worth stealing: no one
else trusts this CA.
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

# What was issued, so that the common case, that all is well, needs no library to read a certificate.
_ISSUED = "issued.json"
_CA_KEY = "ca.key.pem"
# As long as browsers accept a certificate; and how long before its end it is renewed.
_VALID_SECONDS = 397 * 86400
_RENEW_SECONDS = 7 * 86400
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def ensure_certificates(names: Iterable[str], directory: Path = DIRECTORY) -> Path:
    """Make sure that there are certificates for these host names.

    Returns:
        The directory with ca.pem (a certificate), server.pem and client.pem (key and certificate each).

    Raises:
        LabError: the files cannot be written.
    """
    wanted = sorted({*names, *_LOOPBACK})
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Several labs may come up at once.
        with (directory.parent / "tls.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            issued = _read_names(directory)
            if not set(wanted) <= issued:
                # Together with the names of before: another lab of this clone may go by another compose file.
                _make(directory, sorted({*wanted, *issued}), anew=not issued)
    except OSError as error:
        raise LabError(f"no place for the certificates: {error.filename}: {error.strerror}") from None
    return directory


def _read_names(directory: Path) -> set[str]:
    """The host names that there are certificates for; empty if any of them is missing or about to expire."""
    try:
        issued = json.loads((directory / _ISSUED).read_text())
        names, expires = issued["names"], float(issued["expires"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()
    is_whole = all((directory / name).exists() for name in (CA, _CA_KEY, SERVER, CLIENT))
    return set(names) if is_whole and expires - _RENEW_SECONDS > time.time() else set()


def _make(directory: Path, names: list[str], *, anew: bool) -> None:
    # Their library takes as long to import as all else that `lab up` does by itself.
    from lab.servers.ca import create_ca, issue

    directory.mkdir(mode=0o700, exist_ok=True)
    if anew:
        expires = time.time() + _VALID_SECONDS
        ca, ca_key = create_ca(expires)
        _write(directory / CA, ca)
        _write(directory / _CA_KEY, ca_key, mode=0o400)
    else:
        # The CA stays: servers and clients of labs that run keep trusting each other.
        expires = float(json.loads((directory / _ISSUED).read_text())["expires"])
        ca, ca_key = (directory / CA).read_bytes(), (directory / _CA_KEY).read_bytes()
    server, client = issue(ca, ca_key, names, expires)
    _write(directory / SERVER, server)
    _write(directory / CLIENT, client)
    _write(directory / _ISSUED, json.dumps({"names": names, "expires": expires}).encode())


def _write(path: Path, content: bytes, mode: int = 0o444) -> None:
    """In one step. All but the CA's key are read in containers too, by another user; the directory keeps others out."""
    part = path.with_name(f".{path.name}")
    part.unlink(missing_ok=True)
    part.write_bytes(content)
    part.chmod(mode)
    part.replace(path)
