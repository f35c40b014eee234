"""One suite over every model, transport and service, wherever the servers run.

A test names what it is about with `@pytest.mark.service(NAME, KIND)`, KIND being "stream" or "datagram", and gets each
server that offers it as the fixture `target`. What a model declares not to be capable of (`lab.limit.CAPABILITY` in
compose.yaml) is a strict expected failure of the tests marked `@pytest.mark.capability(CAPABILITY)`: a model that turns
out to be capable of it fails the suite just as one that is not.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial

import pytest

from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.open import open_backend
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address, Transport

FOREIGN = "target"

# Seconds that a client waits before it gives up. What it waits for takes milliseconds.
PATIENCE = 10.0


@dataclass(frozen=True)
class Target:
    """A service of a server, and where it is."""

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
        """Whether its protocol is that of `services.protocol`, and so the same as in every such model."""
        return (ROOT / "services" / "models" / f"{self.model}.py").exists()

    def sibling(self, service: str) -> "Target":
        """Another service of the same server, over the same transport."""
        return replace(self, service=service)

    def connect(self, timeout: float = PATIENCE) -> BlockingConnection:
        """A client of this target; to be used with `with`."""
        return BlockingConnection(self.address, timeout=timeout)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "service(name, kind): the service that a conformance test is about")
    config.addinivalue_line("markers", "ours: about what this lab has added to RFCs and to RESP; not asked of peers")
    config.addinivalue_line(
        "markers", "redis: what redis-server answers beyond RESP; not asked of a --target with --rfc"
    )
    config.addinivalue_line("markers", "transport(name): only about this transport")
    config.addinivalue_line("markers", "capability(name): what a model must be capable of, unless it says it is not")
    config.addinivalue_line(
        "markers", "limit(name): only about the models that declare this limit, and what it means there"
    )
    config.addinivalue_line(
        "markers", "once: decided by the protocol, before a model sees it: asked of one of ours only"
    )
    config.addinivalue_line("markers", "about_nothing: none of the servers at hand is one that the test is about")
    config.addinivalue_line("markers", "network_only: needs programs that only the lab's own containers have for sure")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames:
        return
    # A marker on a test stands before one on its class or module.
    service, kind = next(metafunc.definition.iter_markers("service")).args
    capabilities = [marker.args[0] for marker in metafunc.definition.iter_markers("capability")]
    limits = {marker.args[0] for marker in metafunc.definition.iter_markers("limit")}
    is_ours = next(metafunc.definition.iter_markers("ours"), None) is not None
    is_redis = next(metafunc.definition.iter_markers("redis"), None) is not None
    transports = {marker.args[0] for marker in metafunc.definition.iter_markers("transport")}
    network_only = next(metafunc.definition.iter_markers("network_only"), None)
    parameters = []
    if network_only is None or metafunc.config.getoption("network"):
        for target in _targets(metafunc.config):
            if target.service != service or target.transport.is_datagram != (kind == "datagram"):
                continue
            if not limits <= set(target.limits) or (transports and target.transport not in transports):
                continue
            if target.rfc_only and (is_ours or (is_redis and target.model == FOREIGN)):
                continue
            reasons = _reasons(target, capabilities)
            marks = [pytest.mark.xfail(reason=reason, strict=True) for reason in reasons]
            # With xdist, one model's tests stay in one worker: a sequential model serves one client at a time.
            marks.append(pytest.mark.xdist_group(target.model))
            parameters.append(pytest.param(target, id=str(target), marks=marks))
    # A test that is about none of the servers at hand is left out, and counted as such; pytest would call it skipped.
    nothing = pytest.param(None, id="none", marks=pytest.mark.about_nothing)
    metafunc.parametrize("target", parameters or [nothing])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Our models share one protocol core: what it decides alone is asked of the first of them at hand, which stands for
    # all. A server that is not ours, of the catalogue or by --target, has a core of its own, and is asked everything.
    ours = (target.model for target in _targets(config) if target.is_ours)
    stand_in = next(ours, None)
    left_out = [item for item in items if item.get_closest_marker("about_nothing") or _is_known(item, stand_in)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_known(item: pytest.Item, stand_in: str | None) -> bool:
    """Whether a test of another model says the same."""
    if not item.get_closest_marker("once"):
        return False
    target = item.callspec.params["target"]  # type: ignore[attr-defined] # of every test that has parameters
    return target is not None and target.is_ours and target.model != stand_in


def _reasons(target: Target, capabilities: list[str]) -> list[str]:
    """Why it cannot do what a test asks: the limits that it declares, for all transports or for this one."""
    names = [name for capability in capabilities for name in (capability, f"{capability}.{target.transport}")]
    return [target.limits[name] for name in names if name in target.limits]


def _targets(config: pytest.Config) -> tuple[Target, ...]:
    """Every service that can be tested, found once for all tests: to read the catalogue takes a while."""
    if _TARGETS not in config.stash:
        config.stash[_TARGETS] = tuple(_find_targets(config))
    return config.stash[_TARGETS]


def _find_targets(config: pytest.Config) -> Iterator[Target]:
    """Those of one foreign server, of what LAB_TARGETS tells, or of the catalogue."""
    chosen = [name for name in config.getoption("models").split(",") if name]
    if foreign := config.getoption("target"):
        addresses = [(service, Address.parse(url)) for service, _, url in (item.partition("=") for item in foreign)]
        for service, address in addresses:
            where = dict(addresses)
            find = partial(_look_up, where)
            yield Target(FOREIGN, service, address.transport, find, rfc_only=config.getoption("rfc"))
        return
    if text := os.environ.get("LAB_TARGETS"):
        for row in json.loads(text):
            if not chosen or row["model"] in chosen:
                find = partial(_pick, row["listeners"])
                for listener in row["listeners"]:
                    where = listener["service"], Transport(listener["transport"])
                    yield Target(row["model"], *where, find, row.get("limits", {}), row.get("rfc_only", False))
        return
    for model in Catalogue.load().select(chosen):
        listeners = [listener.as_json() for listener in model.addresses]
        find = partial(_pick, listeners) if config.getoption("network") else partial(_start, config)
        for listener in model.addresses:
            where = listener.service, Transport(listener.transport)
            yield Target(model.name, *where, find, model.limits, model.rfc_only)


def _look_up(where: dict[str, Address], target: Target) -> Address:
    return where[target.service]


def _start(config: pytest.Config, target: Target) -> Address:
    return _pick(config.stash[_PROCESSES](target.model), target)


def _pick(listeners: list[dict[str, str]], target: Target) -> Address:
    for listener in listeners:
        if (listener["service"], listener["transport"]) == (target.service, target.transport):
            return Address.parse(listener["address"])
    raise LookupError(f"{target.model} has no {target.service} over {target.transport}")


_TARGETS = pytest.StashKey[tuple[Target, ...]]()
# Starts a model, if it does not run yet, and gives its listeners.
_PROCESSES = pytest.StashKey[Callable[[str], list[dict[str, str]]]]()


@pytest.fixture
def patience(target: Target, request: pytest.FixtureRequest, unit: float) -> float:
    """How many seconds a client waits that should not have to: half of one where it is known to be in vain."""
    return 5 * unit if request.node.get_closest_marker("xfail") else PATIENCE


@pytest.fixture(scope="session", autouse=True)
def processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Models as processes of this run, each started when it is first asked for."""
    backend = open_backend("process", f"conformance-{os.getpid()}")

    @cache
    def start(model: str) -> list[dict[str, str]]:
        backend.up([model])
        return [listener.as_json() for listener in backend.targets() if listener.model == model]

    request.config.stash[_PROCESSES] = start
    yield
    if start.cache_info().currsize:
        backend.down()
