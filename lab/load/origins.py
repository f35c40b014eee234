"""The origins that the web UI of a load may have in a browser, with a proxy or a forwarded port in front of it."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

# `https://lab.example.org https://lab.example.org:8443`, apart by blanks or commas.
VARIABLE = "LAB_UI_ORIGINS"

# The path that a proxy hands on to the UI, as in `/load`.
BASE_PATH_VARIABLE = "LAB_UI_BASE_PATH"

_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"[a-z]+://[^/?#]+/?", re.IGNORECASE)
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def parse_origins(text: str) -> frozenset[str]:
    """Read a list of origins.

    Raises:
        ValueError: what one of them lacks.
    """
    return frozenset(_parse(word) for word in text.replace(",", " ").split())


def parse_base_path(text: str) -> str:
    """Read a base path; empty if there is none.

    Raises:
        ValueError: it is not one.
    """
    path = text.rstrip("/")
    if path and not _BASE_PATH.fullmatch(path):
        raise ValueError(f"{text!r} is not a path such as /load")
    return path


def normalise(origin: str) -> str | None:
    """An origin as all are compared: in small letters, without a port that goes without saying; None if it is none."""
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
    """Whether a host, with its port if it has one, is that of one of the origins."""
    return any(normalise(f"{scheme}://{host}") in origins for scheme in _PORTS)


def _parse(word: str) -> str:
    origin = normalise(word)
    if origin is None or not _ORIGIN.fullmatch(word):
        raise ValueError(f"{word!r} is not an origin such as https://lab.example.org:8443: no path, and no *")
    return origin
