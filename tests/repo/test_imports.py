"""Imports go one way (docs/design.md): read from the sources, so that a lazy import counts too."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for part in ("services", "lab", "loadtests") for path in (ROOT / part).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{name.name}" for name in node.names)


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def forbidden(importer: str, module: str) -> bool:
    """Whether `importer` must not import `module`."""
    if is_in(module, "tests"):
        return True
    if is_in(importer, "services.protocol"):
        return is_in(module, "services", "lab", "loadtests") and not is_in(module, "services.protocol")
    if is_in(importer, "services"):
        if is_in(module, "services.models"):
            return importer != "services.run" and not is_in(importer, "services.models")
        return is_in(module, "lab", "loadtests", "services.run")
    if is_in(importer, "lab") and is_in(module, "locust", "gevent", "loadtests"):
        return True
    return is_in(module, "services") and module != "services" and not is_in(module, "services.protocol")


def test_imports_go_one_way() -> None:
    wrong = {
        module_of(path): found
        for path in FILES
        if (found := [module for module in imported(path) if forbidden(module_of(path), module)])
    }
    assert not wrong


def test_no_file_is_named_like_a_module_that_it_imports() -> None:
    assert not [module_of(path) for path in FILES if path.stem in {name.split(".")[0] for name in imported(path)}]


def test_no_part_is_left_out() -> None:
    modules = {module_of(path) for path in FILES}
    assert {
        "services.run",
        "services.models.plain_socket",
        "lab.cli.main",
        "lab.experiments.bench.runner",
        "loadtests.sockets.engine",
    } <= modules


def test_the_protocol_does_no_io() -> None:
    io = {"socket", "select", "selectors", "threading", "time", "asyncio", "os", "subprocess", "signal", "ssl", "io"}
    for path in FILES:
        if is_in(module_of(path), "services.protocol"):
            assert not io & {module.split(".")[0] for module in imported(path)}, path


def test_the_rules_can_fail() -> None:
    assert forbidden("services.protocol.echo", "services.serving.listeners")
    assert forbidden("services.models.plain_socket", "lab.clients.call")
    assert forbidden("services.serving.blocking", "services.models.plain_socket")
    assert forbidden("lab.clients.call", "services.models.plain_socket")
    assert forbidden("lab.experiments.demo", "locust.stats")
    assert not forbidden("services.run", "services.models")
    assert not forbidden("services.models.threads_nogil", "services.models.socketserver_threading")
    assert not forbidden("loadtests.sockets.users", "lab.servers.catalogue")
