"""The models and the servers of the gallery, read from compose.yaml.

A service with the label `lab.model` is a model. A service with the label `lab.gallery` is a server of the gallery, for
the client modules of the standard library; it is in no list of models.

Only the keys that the lab needs are read here (labels, image, entrypoint, build arguments), as Compose reads them
(lab/servers/compose_file.py); Compose checks the rest. Errors name the file and the line, since users add their own
servers to this file.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from lab.base.paths import ROOT
from lab.servers.compose_file import CatalogueError, Loader, find_files, read_services
from services.protocol import SERVICES, Address, Transport, is_offered, port_of

COMPOSE_FILE = ROOT / "compose.yaml"
SOCKET_DIRECTORY = "/run/lab"
# The profile of the reference peers, which are other people's servers, and their family.
PEERS, PEER = "peers", "peer"
# The profile of the servers of the gallery, also used as their family.
GALLERY = "gallery"
_MODELS = ROOT / "services" / "models"

_LIMIT = "lab.limit."

# The values of `lab.concurrency`: which clients one server serves at the same time. Theory is computed from it.
CONCURRENCIES = ("one", "thread each", "process each", "threads", "processes", "loop", "loops")
# A valid host name in Docker's networks, a module name, and a part of an image name.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Listener:
    """An address at which a model serves one service.

    Args:
        path: of an external server of `http`, the page to ask instead of this lab's routes.
        any_body: its body may differ from reply to reply.
    """

    model: str
    service: str
    transport: str
    address: str
    path: str = ""
    any_body: bool = False

    def as_json(self) -> dict[str, str]:
        """Return the object that `lab ls --json` prints, which leaves out the model."""
        found = {"service": self.service, "transport": self.transport, "address": self.address}
        return {**found, "path": self.path, "body": "any" if self.any_body else "first"} if self.path else found


@dataclass(frozen=True, slots=True)
class Model:
    """A server under test.

    Args:
        name: its file, Compose service, image tag, host name and `--model` argument.
        family: sequential, thread, process, readiness loop, event loop or coroutine.
        extra: the optional dependency of this project that it needs.
        limits: capability that it lacks -> reason.
        services: the services that it speaks, in the order of `SERVICES`.
        addresses: as seen from inside the lab's network; those of a service in the order of `Transport`.
        rfc_only: whether it is tested only for what RFCs and the RESP specification say, and not for what this lab
            has added: commands, the text of errors, limits, and the stages of a close.
        profile: its Compose profile; such a model is used only if it or its profile is named.
        only_in_container: whether it cannot run as a process of this machine.
        uses_all_cores: whether one server can keep several cores busy.
        concurrency: one of `CONCURRENCIES`; None if the label is missing.
    """

    name: str
    family: str
    summary: str
    extra: str | None
    limits: Mapping[str, str]
    services: tuple[str, ...]
    addresses: tuple[Listener, ...]
    rfc_only: bool = False
    profile: str | None = None
    only_in_container: bool = False
    uses_all_cores: bool = False
    concurrency: str | None = None


@dataclass(frozen=True, slots=True)
class GalleryServer:
    """A server of the gallery: a standard server, with its own protocol.

    Args:
        name: its Compose service, image tag and host name.
        addresses: as seen from inside the lab's network.
    """

    name: str
    summary: str
    addresses: tuple[Listener, ...]


@dataclass(frozen=True)
class Catalogue:
    """The models of a compose file and its override, in their order.

    Args:
        files: compose.yaml, and compose.override.yaml if there is one.
        gallery: the servers of the gallery.
        definitions: each Compose service, merged from the files: models, instruments and all others.
    """

    files: tuple[Path, ...]
    models: tuple[Model, ...]
    gallery: tuple[GalleryServer, ...]
    definitions: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read a compose file and its override in the same folder.

        Args:
            path: default: compose.yaml of this project.

        Raises:
            CatalogueError: file, line and what is wrong.
        """
        path = path or COMPOSE_FILE
        files = find_files(path)
        definitions = read_services(files, os.environ)
        models = tuple(_read_models(files, definitions))
        if not models:
            raise CatalogueError(f"{path}: no service has the label lab.model, so there is no model")
        return cls(files, models, tuple(_read_gallery(files, definitions)), definitions)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models)

    @cached_property
    def hosts(self) -> tuple[str, ...]:
        """The host names of all models and of all servers of the gallery."""
        return self.names + tuple(server.name for server in self.gallery)

    def known_host(self, name: str) -> str:
        """Return the name if it is one of `hosts`.

        Raises:
            CatalogueError: an unknown name; with the names of the models.
        """
        return name if name in self.hosts else self[name].name

    @cached_property
    def profiles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(model.profile for model in self.models if model.profile))

    def select(self, names: Iterable[str | Model] = (), profiles: Iterable[str] = ()) -> tuple[Model, ...]:
        """Return the models with these names or profiles, in the catalogue's order.

        Without names: those of the profiles, and all without a profile.

        Raises:
            CatalogueError: an unknown name or profile, with the known ones; or there is no model to select.
        """
        wanted = list(dict.fromkeys(item if isinstance(item, str) else item.name for item in names))
        active = list(dict.fromkeys(profiles))
        for name in wanted:
            if name in self.hosts and name not in self.names:
                raise CatalogueError(f"{name} is a server of the gallery, not a model")
            if name not in self.names:
                raise CatalogueError(f"unknown model {name!r}; known: {', '.join(self.names)}")
        for profile in active:
            if profile not in self.profiles:
                known = ", ".join(self.profiles) or "none"
                raise CatalogueError(f"unknown profile {profile!r}; known: {known}")
        selected = tuple(
            model
            for model in self.models
            if model.name in wanted or model.profile in active or not (wanted or model.profile)
        )
        if not selected:
            raise CatalogueError(f"every model belongs to a profile, so name one: {', '.join(self.profiles)}")
        return selected

    def select_gallery(self, names: Iterable[str] = (), profiles: Iterable[str] = ()) -> tuple[GalleryServer, ...]:
        """Return the servers of the gallery with these names; all of them if `GALLERY` is among the profiles."""
        wanted, everything = set(names), GALLERY in profiles
        return tuple(server for server in self.gallery if everything or server.name in wanted)

    def __getitem__(self, name: str) -> Model:
        return self.select([name])[0]

    def listeners_of(self, model: Model | str) -> list[Listener]:
        """Return where a model listens, as seen from inside the lab's network."""
        return list((self[model] if isinstance(model, str) else model).addresses)

    def image(self, service: str) -> str:
        return str(self.definitions[service].get("image", ""))

    def environ(self, service: str) -> dict[str, str]:
        """Return the environment of a Compose service in compose.yaml, without variables that have no value."""
        environment: dict[str, str | None] = self.definitions[service].get("environment") or {}
        return {name: value for name, value in environment.items() if value is not None}

    def entrypoint(self, service: str) -> list[str]:
        """Return the entry point of a Compose service, to which arguments are added."""
        return [str(word) for word in self.definitions.get(service, {}).get("entrypoint") or []]

    def check_process(self, model: str) -> None:
        """Refuse a model that has an `env_file`, which only Compose reads, for the process backend.

        Raises:
            CatalogueError: file and line.
        """
        if self.definitions[model].get("env_file"):
            what = f"env_file of {model} is read only for containers: put the variables under environment"
            raise _error_in(self.files, ["services", model, "env_file"], what)


def _addresses(service: str, host: str, directory: str) -> Iterator[tuple[Transport, Address]]:
    for transport in Transport:
        if is_offered(service, transport):
            if transport.is_unix:
                ending = ".dgram.sock" if transport.is_datagram else ".sock"
                yield transport, Address(transport, path=f"{directory}/{service}{ending}")
            else:
                yield transport, Address(transport, host, port_of(service, transport))


def _read_models(files: Sequence[Path], definitions: Mapping[str, Mapping[str, Any]]) -> Iterator[Model]:
    for name, definition in definitions.items():
        labels: dict[str, str] = definition["labels"]
        if "lab.model" not in labels:
            continue

        def wrong(label: str, what: str, name: str = name) -> CatalogueError:
            return _error_in(files, ["services", name, "labels", label], what)

        if not _NAME.fullmatch(name):
            raise wrong("lab.model", f"{name!r} is not a valid model name: use at most 40 small letters, digits and _")
        if labels["lab.model"] != name:
            said = labels["lab.model"]
            raise wrong("lab.model", f"label lab.model is {said!r}, but the service is {name!r}: they must be one name")
        for label in ("lab.family", "lab.summary"):
            if not labels.get(label, "").strip():
                raise wrong(label, f"model {name} has no label {label}")
        if not definition.get("image"):
            raise wrong("lab.model", f"model {name} has no image")
        profile = _read_profile(files, name, definition.get("profiles"))
        for label, value in (("lab.only", "container"), ("lab.cores", "all"), ("lab.contract", "rfc")):
            if labels.get(label, value) != value:
                raise wrong(label, f"label {label} of {name} is {labels[label]!r}; the only value is {value!r}")
        concurrency = labels.get("lab.concurrency")
        if concurrency is not None and concurrency not in CONCURRENCIES:
            known = ", ".join(CONCURRENCIES)
            raise wrong("lab.concurrency", f"label lab.concurrency of {name} is {concurrency!r}; known: {known}")
        try:
            addresses = tuple(_read_addresses(name, labels))
        except ValueError as error:
            raise wrong("lab.transports" if "transport" in str(error) else "lab.services", str(error)) from None
        yield Model(
            name=name,
            family=labels["lab.family"],
            summary=labels["lab.summary"],
            extra=labels.get("lab.extra") or None,
            limits={key.removeprefix(_LIMIT): value for key, value in labels.items() if key.startswith(_LIMIT)},
            services=tuple(dict.fromkeys(listener.service for listener in addresses)),
            addresses=addresses,
            rfc_only="lab.contract" in labels,
            profile=profile,
            only_in_container="lab.only" in labels or not (_MODELS / f"{name}.py").exists(),
            uses_all_cores="lab.cores" in labels,
            concurrency=concurrency,
        )


def _read_gallery(files: Sequence[Path], definitions: Mapping[str, Mapping[str, Any]]) -> Iterator[GalleryServer]:
    for name, definition in definitions.items():
        labels: dict[str, str] = definition["labels"]
        if "lab.gallery" not in labels:
            continue

        def wrong(key: str, what: str, name: str = name) -> CatalogueError:
            return _error_in(files, ["services", name, *([key] if key == "profiles" else ["labels", key])], what)

        if not _NAME.fullmatch(name):
            raise wrong(
                "lab.gallery", f"{name!r} is not a valid server name: use at most 40 small letters, digits and _"
            )
        if not labels["lab.gallery"].strip():
            raise wrong("lab.gallery", f"the label lab.gallery of {name} is empty: it is the server's summary")
        if "lab.model" in labels:
            raise wrong("lab.gallery", f"{name} has both lab.model and lab.gallery: remove one of them")
        if _read_profile(files, name, definition.get("profiles")) != GALLERY:
            raise wrong("profiles", f"{name} has the label lab.gallery, so it needs the profile {GALLERY}")
        addresses = []
        for entry in _split(labels.get("lab.services")):
            service, _, url = entry.partition("=")
            try:
                address = Address.parse(url)
            except ValueError as error:
                raise wrong("lab.services", f"{entry!r} in lab.services of {name} is not NAME=URL: {error}") from None
            addresses.append(Listener(name, service, address.transport.value, str(address)))
        yield GalleryServer(name, labels["lab.gallery"], tuple(addresses))


def _read_addresses(name: str, labels: Mapping[str, str]) -> Iterator[Listener]:
    """Yield the listeners of a model by its labels lab.services and lab.transports (default: all of both).

    Raises:
        ValueError: an invalid label.
    """
    transports = _split(labels.get("lab.transports")) or list(Transport)
    for transport in transports:
        if transport not in list(Transport):
            raise ValueError(f"{transport!r} is not a transport; known: {', '.join(Transport)}")
    chosen: dict[str, list[Address]] = {}
    for entry in _split(labels.get("lab.services")) or list(SERVICES):
        service, separator, url = entry.partition("=")
        if service not in SERVICES:
            raise ValueError(f"{service!r} is not a service; known: {', '.join(SERVICES)}")
        known = chosen.setdefault(service, [])
        if separator:
            address = Address.parse(url)
            if not is_offered(service, address.transport):
                raise ValueError(f"{url}: {service} is not available over {address.transport}")
            if not address.transport.is_unix and address.port is None:
                address = Address(address.transport, address.host, port_of(service, address.transport))
            known.append(address)
        else:
            found = dict(_addresses(service, name, f"{SOCKET_DIRECTORY}/{name}"))
            known += [address for transport, address in found.items() if transport in transports]
    for service in SERVICES:
        for address in chosen.get(service, []):
            yield Listener(name, service, address.transport.value, str(address))


def _split(text: str | None) -> list[str]:
    return re.split(r"[,\s]+", text.strip()) if text and text.strip() else []


def _read_profile(files: Sequence[Path], service: str, profiles: object) -> str | None:
    if profiles is None or profiles == []:
        return None
    names = set(profiles) if isinstance(profiles, list) and all(isinstance(item, str) for item in profiles) else set()
    if len(names) != 1:
        raise _error_in(files, ["services", service, "profiles"], f"profiles of {service} has to be a list of one name")
    return str(names.pop())


def _error_in(files: Sequence[Path], keys: Sequence[str], what: str) -> CatalogueError:
    """Make an error for the file that has the most of `keys`; of several such files, the last one."""
    _, path, line = max(
        (depth, index, line) for index, (depth, line) in enumerate(_find_line(file, keys) for file in files)
    )
    return CatalogueError(f"{files[path]}:{line}: {what}")


def _find_line(path: Path, keys: Sequence[str]) -> tuple[int, int]:
    """Return how many of `keys` a file has, each inside the one before, and the line (from 1) of the last one.

    Only errors need it, so the file is parsed again: YAML's nodes have lines, the values made of them do not.
    """
    with path.open(encoding="utf-8") as file:
        node = yaml.compose(file, Loader=Loader)
    line = 1
    for depth, key in enumerate(keys):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next((pair for pair in pairs if pair[0].value == str(key)), None)
        if found is None:
            return depth, line
        line, node = found[0].start_mark.line + 1, found[1]
    return len(keys), line
