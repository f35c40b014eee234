"""The environment of the Docker client: of the user's settings it keeps the engine's address and credentials.

All other variables of Docker, Compose and buildx are dropped, and the rest of the client's config.json: they would
change what the lab does inside its own network. Proxies are an example: the client sets them in each container that it
creates, and clients inside would use a proxy to reach the server next to them. A build keeps all settings.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.engine.errors import EngineError

# Variables with these prefixes are dropped, except those below. _DROPPED is a variable of buildx without a prefix.
PREFIXES = ("DOCKER_", "COMPOSE_", "BUILDKIT_", "BUILDX_")
_DROPPED = {"SOURCE_DATE_EPOCH"}
KEPT = {
    "DOCKER_API_VERSION",
    "DOCKER_AUTH_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_CUSTOM_HEADERS",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
}
# Keys of config.json.
KEPT_KEYS = {"auths", "cliPluginsExtraDirs", "credHelpers", "credsStore", "currentContext", "HttpHeaders"}

OWN_HOSTS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
_CONFIGS = Path(__file__).resolve().parents[2] / ".lab" / "docker"
_DEFAULT = "default"


def make_environ(environ: Mapping[str, str] | None = None, *, for_build: bool = False) -> dict[str, str]:
    """Make the environment for a command of the client from the user's (default: that of this process).

    Args:
        for_build: keep config.json as it is, since a build reaches its mirrors by the proxies in it. The builder is
            the engine that runs the containers, even if the user has chosen another one.

    Raises:
        EngineError: a reduced config.json cannot be written.
    """
    environ = os.environ if environ is None else environ
    made = {
        name: value
        for name, value in environ.items()
        if name in KEPT or not (name in _DROPPED or name.startswith(PREFIXES))
    }
    if for_build:
        made["BUILDX_BUILDER"] = find_context(environ)
    elif (folder := _provide_config(_find_folder(environ))) is not None:
        made["DOCKER_CONFIG"] = str(folder)
    return made


def find_context(environ: Mapping[str, str]) -> str:
    """Return the name of the client's context, which is also the name of the engine's own builder."""
    if environ.get("DOCKER_HOST"):
        return _DEFAULT
    return environ.get("DOCKER_CONTEXT") or str(_read(_find_folder(environ)).get("currentContext") or _DEFAULT)


def is_own_engine(environ: Mapping[str, str]) -> bool:
    """Return whether the client talks to the engine at this machine's default socket."""
    host = environ.get("DOCKER_HOST", "")
    return host in OWN_HOSTS if host else find_context(environ) == _DEFAULT


def _find_folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or Path.home()) / ".docker")


def _read(folder: Path) -> dict[str, Any]:
    """Read config.json; return {} where the client ignores it too."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _provide_config(folder: Path) -> Path | None:
    """Make a copy of the user's folder (contexts, plugins, certificates) whose config.json has only `KEPT_KEYS`.

    Returns:
        None if the user's config.json has no other keys.
    """
    config = _read(folder)
    kept = {key: value for key, value in config.items() if key in KEPT_KEYS}
    if kept == config:
        return None
    folder = folder.absolute()
    own = _CONFIGS / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Several labs may do this at the same time, so each step is atomic.
        part = own / f".config.json.{os.getpid()}"
        part.touch(mode=0o600)
        part.write_text(json.dumps(kept), encoding="utf-8")
        part.replace(own / "config.json")
        for entry in folder.iterdir():
            if entry.name != "config.json" and not (own / entry.name).is_symlink():
                _link(own / entry.name, entry)
    except OSError as error:
        raise EngineError(
            f"the Docker client's configuration cannot be written: {error.filename}: {error.strerror}",
            f"make {_CONFIGS.parent} writable, or keep only keys about registries in {folder}/config.json",
        ) from None
    return own


def _link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except FileExistsError:
        return  # another lab was faster
