"""The origins that a browser may use for the web UI behind a proxy or a forwarded port."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"[a-z]+://[^/?#]+/?", re.IGNORECASE)
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def parse_origins(text: str) -> frozenset[str]:
    """Parse a list of origins, separated by blanks or commas.

    Raises:
        ValueError: an origin is invalid.
    """
    return frozenset(_parse(word) for word in text.replace(",", " ").split())


def parse_base_path(text: str) -> str:
    """Parse a base path; return "" if there is none.

    Raises:
        ValueError: the path is invalid.
    """
    path = text.rstrip("/")
    if path and not _BASE_PATH.fullmatch(path):
        raise ValueError(f"{text!r} is not a path such as /load")
    return path


def normalise(origin: str) -> str | None:
    """Return an origin in lower case and without a default port; None if it is invalid."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or "*" in parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, _PORTS[parts.scheme]) else f":{port}")


def has_host(origins: Collection[str], host: str) -> bool:
    """Return whether a host, with its port if it has one, belongs to one of the origins."""
    return any(normalise(f"{scheme}://{host}") in origins for scheme in _PORTS)


def _parse(word: str) -> str:
    origin = normalise(word)
    if origin is None or not _ORIGIN.fullmatch(word):
        raise ValueError(f"{word!r} is not an origin such as https://lab.example.org:8443: no path, and no *")
    return origin
