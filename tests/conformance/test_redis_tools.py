"""Unmodified redis-cli and redis-benchmark against every model."""

import re
import subprocess

import pytest

from loadtests.sockets.tls import ca_file, certificate_file
from services.protocol import Transport

pytestmark = [pytest.mark.service("command", "stream"), pytest.mark.network_only]


def run(program: str, target, *arguments: str, stdin: str = "") -> str:
    """Run a program of redis-tools against a target; return its output of both streams."""
    where = target.address
    to = ["-s", where.path] if where.transport.is_unix else ["-h", where.host, "-p", str(where.port)]
    if where.transport is Transport.TLS:
        to += ["--tls", "--cacert", ca_file(), "--cert", certificate_file(), "--key", certificate_file()]
    result = subprocess.run(
        [program, *to, *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["PING"], "PONG\n"),
        (["ECHO", "two words"], "two words\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_redis_cli(target, words: list[str], answer: str) -> None:
    assert run("redis-cli", target, *words) == answer


@pytest.mark.ours
@pytest.mark.parametrize(
    ("words", "answer"),
    [(["SLEEP", "1"], "OK\n"), (["BLOB", "5"], ' !"#$\n'), (["COMMAND", "COUNT"], "17\n")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_redis_cli_with_the_labs_commands(target, words: list[str], answer: str) -> None:
    assert run("redis-cli", target, *words) == answer


@pytest.mark.ours
def test_redis_cli_with_commands_on_stdin(target) -> None:
    assert run("redis-cli", target, stdin="PING\nECHO 'a b'\nNOPE\n") == "PONG\na b\nERR unknown command 'NOPE'\n\n"


@pytest.mark.redis
def test_redis_cli_in_a_transaction(target) -> None:
    typed = "MULTI\nECHO a\nPING\nEXEC\nSELECT 0\nEXEC\n"
    assert run("redis-cli", target, stdin=typed) == "OK\nQUEUED\nQUEUED\na\nPONG\nOK\nERR EXEC without MULTI\n\n"


@pytest.mark.ours
def test_redis_cli_with_a_database_and_a_password(target) -> None:
    assert run("redis-cli", target, "-n", "0", "PING") == "PONG\n"
    assert "DB index is out of range" in run("redis-cli", target, "-n", "1", "PING")
    said = run("redis-cli", target, "--no-auth-warning", "-a", "x", "PING")
    assert said.startswith("AUTH failed: ERR AUTH <password> called without any password configured")
    assert said.endswith("PONG\n")
    assert run("redis-cli", target, "-3", "--no-auth-warning", "--user", "default", "-a", "x", "PING") == "PONG\n"
    assert "redis_version:" in run("redis-cli", target, "INFO", "server")


@pytest.mark.redis
def test_redis_benchmark_of_database_0(target) -> None:
    output = run("redis-benchmark", target, "--dbnum", "0", "-n", "100", "-c", "1", "-q", "-t", "ping_mbulk")
    assert "requests per second" in output
    assert "rror" not in output


@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark(target, pipeline: int) -> None:
    """Each of its tests ends with a rate and without a warning."""
    clients = "1" if "overlap" in target.limits else "20"
    # Enough requests to take some milliseconds: in less than one, the tool prints the rate "inf".
    options = ["-n", "4000", "-c", clients, "-P", str(pipeline), "-q"]
    output = run("redis-benchmark", target, *options, "-t", "ping_inline,ping_mbulk")
    assert re.findall(r"(PING_\w+): [\d.]+ requests per second", output) == ["PING_INLINE", "PING_MBULK"]
    assert "WARN" not in output
    assert "rror" not in output


@pytest.mark.ours
@pytest.mark.parametrize("words", [["ECHO", "x" * 1000], ["BLOB", "10000"], ["SLEEP", "0"]], ids=lambda words: words[0])
def test_redis_benchmark_with_the_labs_commands(target, words: list[str]) -> None:
    clients = "1" if "overlap" in target.limits else "20"
    output = run("redis-benchmark", target, "-n", "500", "-c", clients, "-P", "4", "-q", *words)
    assert "requests per second" in output
    assert "rror" not in output
