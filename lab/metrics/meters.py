"""Choose the meter of a container: its control group if that is on this machine, else the engine's API."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import docker
import docker.errors
import requests

from lab.metrics.cgroup import CgroupMeter
from lab.metrics.sample import Meter, NoMeter, Sample


class StatsMeter:
    """Reads a container through the engine's API: works with a remote engine, at some ten milliseconds a reading.

    Args:
        fetch: returns one answer of the engine's `stats`.
    """

    def __init__(self, fetch: Callable[[], dict[str, Any]]) -> None:
        self._fetch = fetch
        self.pid = None

    def read(self) -> Sample:
        try:
            stats = self._fetch()
        except (docker.errors.DockerException, requests.RequestException):
            return Sample()
        cpu = stats.get("cpu_stats", {})
        usage = cpu.get("cpu_usage", {})
        # The engine answers 0 for a container that has stopped.
        nanoseconds = usage.get("total_usage")
        memory = stats.get("memory_stats", {})
        used, details = memory.get("usage"), memory.get("stats", {})
        cache = details.get("total_inactive_file", details.get("inactive_file"))
        return Sample(
            cpu_seconds=nanoseconds / 1e9 if nanoseconds else None,
            memory_bytes=None if used is None or cache is None else max(used - cache, 0),
            threads=stats.get("pids_stats", {}).get("current"),
            user_seconds=_seconds(usage.get("usage_in_usermode")) if nanoseconds else None,
            system_seconds=_seconds(usage.get("usage_in_kernelmode")) if nanoseconds else None,
            peak_bytes=memory.get("max_usage"),
            throttled_seconds=_seconds(cpu.get("throttling_data", {}).get("throttled_time")) if nanoseconds else None,
        )

    # The engine reports neither.
    def count_descriptors(self) -> None: ...

    def count_zombies(self) -> None: ...


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def find_container(ip: str) -> str | None:
    """Return the id of the running container that has an address; None without an engine or such a container."""
    try:
        with closing(docker.from_env()) as client:
            found = client.api.containers()
    except (docker.errors.DockerException, requests.RequestException):
        return None
    for item in found:
        networks = (item["NetworkSettings"].get("Networks") or {}).values()
        if any(ip in (network.get("IPAddress"), network.get("GlobalIPv6Address")) for network in networks):
            return str(item["Id"])
    return None


def open_container_meter(container: str) -> Meter:
    """Return the best meter there is for a container.

    Args:
        container: its name, or its full id.
    """
    try:
        client = docker.from_env()
        found = client.api.inspect_container(container)
        pid, container = found["State"]["Pid"], found["Id"]
    except (docker.errors.DockerException, requests.RequestException, KeyError) as error:
        return NoMeter(f"the Docker engine does not describe the container {container}: {error}")
    if meter := CgroupMeter.find(pid, container):
        client.close()
        return meter
    return StatsMeter(lambda: client.api.stats(container, stream=False, one_shot=True))
