"""One suite for every model, transport and service, wherever the servers run.

A test names its service with `@pytest.mark.service(NAME, KIND)`, where KIND is "stream" or "datagram". It runs once for
each server with that service, as the fixture `target`. A limit that a model declares (`lab.limit.CAPABILITY` in
compose.yaml) makes the tests marked `@pytest.mark.capability(CAPABILITY)` strict expected failures: a model that can do
what it declares it cannot fails the suite, too.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import pytest

from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.open import open_backend
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address, Transport

EXTERNAL = "target"

# The tests that servers of the catalogue are known to fail, by name; tools/docs/http_servers.py writes it.
DIFFERENCES = Path(__file__).with_name("http_differences.json")

# Services at the address of another one.
SPOKEN_AT = {"websocket": "http"}

# Timeout of a client in seconds; replies take milliseconds.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Target:
    """A service of one server over one transport, and a way to find its address."""

    model: str
    service: str
    transport: Transport
    find: Callable[["Target"], Address]
    limits: Mapping[str, str] = field(default_factory=dict, hash=False)
    rfc_only: bool = False

    def __str__(self) -> str:
        return f"{self.model}-{self.service}-{self.transport}"

    @property
    def address(self) -> Address:
        return self.find(self)

    @property
    def is_ours(self) -> bool:
        """Whether it uses `services.protocol`, as every model does."""
        return (ROOT / "services" / "models" / f"{self.model}.py").exists()

    def sibling(self, service: str) -> "Target":
        """Return another service of the same server over the same transport."""
        return replace(self, service=service)

    def connect(self, timeout: float = TIMEOUT) -> BlockingConnection:
        """Open a connection, as a context manager."""
        return BlockingConnection(self.address, timeout=timeout)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "service(name, kind): the service under test")
    config.addinivalue_line("markers", "ours: this lab's additions to RFCs and RESP; not for peers")
    config.addinivalue_line("markers", "redis: what redis-server answers beyond RESP; not for a --target with --rfc")
    config.addinivalue_line("markers", "routes: the lab's routes of http; not for a --target with --rfc")
    config.addinivalue_line("markers", "transport(name): only for this transport")
    config.addinivalue_line("markers", "capability(name): what a model must be able to do, unless it declares a limit")
    config.addinivalue_line("markers", "limit(name): only for models that declare this limit; tests its effect")
    config.addinivalue_line("markers", "once: decided by the shared protocol code; runs for one model only")
    config.addinivalue_line("markers", "no_target: no server of this run offers the service")
    config.addinivalue_line("markers", "network_only: needs programs that only the lab's containers are sure to have")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames:
        return
    # A marker on a test precedes one on its module.
    service, kind = next(metafunc.definition.iter_markers("service")).args
    capabilities = [marker.args[0] for marker in metafunc.definition.iter_markers("capability")]
    limits = {marker.args[0] for marker in metafunc.definition.iter_markers("limit")}
    is_ours = next(metafunc.definition.iter_markers("ours"), None) is not None
    # Of servers of the catalogue alone, or of those without --rfc.
    is_local = any(next(metafunc.definition.iter_markers(name), None) is not None for name in ("redis", "routes"))
    transports = {marker.args[0] for marker in metafunc.definition.iter_markers("transport")}
    network_only = next(metafunc.definition.iter_markers("network_only"), None)
    # Where the whole test is marked, its cases are not even made for the other models: they would be thousands.
    is_once = next(metafunc.definition.iter_markers("once"), None) is not None
    representative = _find_representative(metafunc.config)
    parameters = []
    if network_only is None or metafunc.config.getoption("network"):
        for target in _targets(metafunc.config):
            if target.service != service or target.transport.is_datagram != (kind == "datagram"):
                continue
            if not limits <= set(target.limits) or (transports and target.transport not in transports):
                continue
            if is_once and target.is_ours and target.model != representative:
                continue
            if target.rfc_only and (is_ours or (is_local and target.model == EXTERNAL)):
                continue
            reasons = _find_limits(target, capabilities)
            marks = [pytest.mark.xfail(reason=reason, strict=True) for reason in reasons]
            # With xdist, one model's tests stay in one worker: a sequential model serves one client at a time.
            marks.append(pytest.mark.xdist_group(target.model))
            parameters.append(pytest.param(target, id=str(target), marks=marks))
    # A test without a target is deselected; pytest would skip it otherwise.
    nothing = pytest.param(None, id="none", marks=pytest.mark.no_target)
    metafunc.parametrize("target", parameters or [nothing])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _expect_differences(items)
    # Our models share the protocol code. Tests of that code alone run for the first model only, which represents all.
    # A peer or a --target has its own code, and gets all tests.
    representative = _find_representative(config)
    left_out = [item for item in items if item.get_closest_marker("no_target") or _is_redundant(item, representative)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        ids = {id(item) for item in left_out}
        items[:] = [item for item in items if id(item) not in ids]


def _expect_differences(items: list[pytest.Item]) -> None:
    """Expect the failures of other people's servers that are known: docs/http-servers.md."""
    known = json.loads(DIFFERENCES.read_text(encoding="utf-8"))
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        target = parameters.get("target")
        if not isinstance(target, Target):
            continue
        if item.name.replace(f"{target.model}-", "", 1) in known.get(target.model, ()):
            item.add_marker(pytest.mark.xfail(reason="differs from the RFC: docs/http-servers.md", strict=True))


def _find_representative(config: pytest.Config) -> str | None:
    return next((target.model for target in _targets(config) if target.is_ours), None)


def _is_redundant(item: pytest.Item, representative: str | None) -> bool:
    """Return whether the representative runs the same test."""
    if not item.get_closest_marker("once"):
        return False
    target = item.callspec.params["target"]  # type: ignore[attr-defined] # every parametrized test has it
    return target is not None and target.is_ours and target.model != representative


def _find_limits(target: Target, capabilities: list[str]) -> list[str]:
    """Return the reasons of declared limits in these capabilities, for all transports or for this one."""
    names = [name for capability in capabilities for name in (capability, f"{capability}.{target.transport}")]
    return [target.limits[name] for name in names if name in target.limits]


def _targets(config: pytest.Config) -> tuple[Target, ...]:
    """Return all targets. They are found once, since reading the catalogue takes a while."""
    if _TARGETS not in config.stash:
        config.stash[_TARGETS] = tuple(_find_targets(config))
    return config.stash[_TARGETS]


def _find_targets(config: pytest.Config) -> Iterator[Target]:
    """Yield the targets of `_find_listeners`, and those of the services that ours have at the same address."""
    for target in _find_listeners(config):
        yield target
        # A --target names all that it speaks.
        if target.model != EXTERNAL:
            spoken = (name for name, where in SPOKEN_AT.items() if where == target.service)
            yield from (replace(target, service=name) for name in spoken if name not in target.limits)


def _find_listeners(config: pytest.Config) -> Iterator[Target]:
    """Yield the targets of --target, of LAB_TARGETS, or of the catalogue."""
    chosen = [name for name in config.getoption("models").split(",") if name]
    if external := config.getoption("target"):
        addresses = [(service, Address.parse(url)) for service, _, url in (item.partition("=") for item in external)]
        for service, address in addresses:
            where = dict(addresses)
            find = partial(_find_external, where)
            yield Target(EXTERNAL, service, address.transport, find, rfc_only=config.getoption("rfc"))
        return
    if text := os.environ.get("LAB_TARGETS"):
        for row in json.loads(text):
            if not chosen or row["model"] in chosen:
                find = partial(_pick, row["listeners"])
                limits, rfc_only = row.get("limits", {}), row.get("rfc_only", False)
                for listener in row["listeners"]:
                    over = Transport(listener["transport"])
                    yield Target(row["model"], listener["service"], over, find, limits, rfc_only)
        return
    for model in Catalogue.load().select(chosen):
        listeners = [listener.as_json() for listener in model.addresses]
        find = partial(_pick, listeners) if config.getoption("network") else partial(_start, config)
        for listener in model.addresses:
            over = Transport(listener.transport)
            yield Target(model.name, listener.service, over, find, model.limits, model.rfc_only)


def _find_external(where: dict[str, Address], target: Target) -> Address:
    return where[target.service]


def _start(config: pytest.Config, target: Target) -> Address:
    return _pick(config.stash[_PROCESSES](target.model), target)


def _pick(listeners: list[dict[str, str]], target: Target) -> Address:
    service = SPOKEN_AT.get(target.service, target.service)
    for listener in listeners:
        if (listener["service"], listener["transport"]) == (service, target.transport):
            return Address.parse(listener["address"])
    raise LookupError(f"{target.model} has no {target.service} over {target.transport}")


_TARGETS = pytest.StashKey[tuple[Target, ...]]()
# Starts a model unless it is running, and returns its listeners.
_PROCESSES = pytest.StashKey[Callable[[str], list[dict[str, str]]]]()


@pytest.fixture
def client_timeout(target: Target, request: pytest.FixtureRequest, unit: float) -> float:
    """Return the timeout of a client that should not have to wait: short for an expected failure."""
    return 5 * unit if request.node.get_closest_marker("xfail") else TIMEOUT


@pytest.fixture(scope="session", autouse=True)
def processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start each model as a process when a test first needs it."""
    backend = open_backend("process", f"conformance-{os.getpid()}")

    @cache
    def start(model: str) -> list[dict[str, str]]:
        backend.up([model])
        return [listener.as_json() for listener in backend.targets() if listener.model == model]

    find: Callable[[str], list[dict[str, str]]] = start
    request.config.stash[_PROCESSES] = find
    yield
    if start.cache_info().currsize:
        backend.down()
