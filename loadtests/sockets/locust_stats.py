"""Add batches of counts to Locust's statistics: its tables, charts and files then show what it got no events for."""

import time
from collections.abc import Mapping
from typing import Any

import locust.stats
from locust.stats import RequestStats, StatsEntry, StatsError

from loadtests.sockets.histogram import Histogram


def merge_batch(
    stats: RequestStats,
    method: str,
    name: str,
    times: Histogram,
    *,
    answered: int,
    failures: Mapping[str, int],
    content_length: int,
) -> None:
    """Count as if each exchange had been a separate event.

    Args:
        method, name: the row.
        times: of the exchanges that have a response time; Locust's function chooses their buckets.
        answered: number of correct replies.
        failures: number of failures, by reason.
        content_length: bytes of all replies together.
    """
    failed = sum(failures.values())
    if not answered + failed:
        return
    now = time.time()
    batch: Any = StatsEntry(stats, name, method)  # annotated as if times were whole milliseconds
    batch.num_requests = answered + failed
    batch.num_none_requests = answered + failed - times.total
    batch.num_failures = failed
    batch.num_reqs_per_sec[int(now)] = answered + failed
    if failed:
        batch.num_fail_per_sec[int(now)] = failed
    batch.total_response_time = times.total * (times.mean_us or 0.0) / 1000
    batch.min_response_time = None if times.min_us is None else times.min_us / 1000
    batch.max_response_time = (times.max_us or 0.0) / 1000
    for microseconds, count in times.pairs():
        batch.response_times[locust.stats.bucket_response_time(microseconds / 1000)] += count
    batch.total_content_length = content_length
    batch.last_request_timestamp = now
    for entry in (stats.entries[name, method], stats.total):
        batch.start_time = entry.start_time
        entry.extend(batch)
    for reason, count in failures.items():
        key = StatsError.create_key(method, name, reason)
        error = stats.errors.setdefault(key, StatsError(method, name, reason))
        error.occurred()
        error.occurrences += count - 1
