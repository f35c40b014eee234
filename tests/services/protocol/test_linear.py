"""What a stream costs grows with its length and no faster. Shown by counting copied bytes, never by a clock."""

import tracemalloc
from typing import SupportsIndex

import pytest

from services.protocol import Connection, Limits
from services.protocol.resp import RequestReader


class CountedBytes(bytes):
    """Counts the bytes that slices of it copy and that searches in it may look at."""

    work = 0

    def __getitem__(self, key: SupportsIndex | slice) -> int | bytes:  # type: ignore[override]
        found = super().__getitem__(key)
        if isinstance(found, bytes):
            CountedBytes.work += len(found)
        return found

    def find(self, needle: bytes, *borders: SupportsIndex) -> int:  # type: ignore[override]
        found = super().find(needle, *borders)
        start = int(borders[0]) if borders else 0
        limit = min(int(borders[1]), len(self)) if len(borders) > 1 else len(self)
        CountedBytes.work += (limit if found < 0 else found + len(needle)) - start
        return found


class CountingReader(RequestReader):
    """A reader whose joins are counted too, and whose joined buffers count as the chunks do."""

    __slots__ = ()

    def _join(self) -> None:
        super()._join()
        if not isinstance(self._buffer, CountedBytes):
            CountedBytes.work += len(self._buffer)
            self._buffer = CountedBytes(self._buffer)

    def _gather(self) -> None:
        before = len(self._waiting)
        super()._gather()
        if len(self._waiting) < before:
            CountedBytes.work += len(self._waiting[-1])


def work_for(stream: bytes, chunk: int) -> tuple[int, int]:
    """Bytes copied and searched for a stream that arrives in chunks, and the requests that were cut out of it."""
    CountedBytes.work = 0
    reader = CountingReader(Limits())
    requests = 0
    for start in range(0, len(stream), chunk):
        reader.feed(CountedBytes(stream[start : start + chunk]))
        while reader.next_request() is not None:
            requests += 1
    return CountedBytes.work, requests


PING = b"*1\r\n$4\r\nPING\r\n"


@pytest.mark.parametrize("chunk", [4096, 65_536, 2**30], ids=["4KiB", "64KiB", "one"])
@pytest.mark.parametrize("request_bytes", [PING, b"PING\r\n", b"*2\r\n$4\r\nECHO\r\n$12\r\nabcdefghijkl\r\n"])
def test_pipeline_costs_the_same_for_each_request_however_deep_it_is(request_bytes: bytes, chunk: int) -> None:
    for depth in (1, 10, 1_000, 20_000):
        work, requests = work_for(request_bytes * depth, chunk)
        assert requests == depth
        assert work <= 3 * len(request_bytes) * depth


def test_pipeline_of_16_mb_is_copied_at_most_twice() -> None:
    """Large enough requests that counting in Python stays quick: the joins are what could be quadratic here."""
    stream = b"*2\r\n$4\r\nECHO\r\n$2000\r\n%b\r\n" % bytes(2000) * 8_000
    assert len(stream) > 16_000_000
    work, requests = work_for(stream, 65_536)
    assert requests == 8_000
    assert work <= 2.2 * len(stream)


@pytest.mark.parametrize("fragments", [1, 100, 1_000, 10_000, 500_000])
def test_bulk_in_fragments_is_joined_once(fragments: int) -> None:
    stream = b"*2\r\n$4\r\nECHO\r\n$1000000\r\n%b\r\n" % bytes(1_000_000)
    work, requests = work_for(stream, -(-len(stream) // fragments))
    assert requests == 1
    # Once into the buffer, once out of it; and small fragments once before, so that they cost no more than their bytes.
    assert work <= 3.1 * len(stream)


@pytest.mark.parametrize("fragment", [2, 10, 100, 1000])
def test_bulk_in_fragments_takes_the_memory_of_its_bytes(fragment: int) -> None:
    connection = Connection("command")
    connection.receive_data(b"*2\r\n$4\r\nECHO\r\n$100000\r\n")
    assert connection.next_event() is None
    data = bytes(fragment + 2)
    tracemalloc.start()
    try:
        for start in range(0, 90_000, fragment):
            # Slices, so that each is an object of its own as it is off a socket.
            connection.receive_data(data[start % 3 : start % 3 + fragment])
            assert connection.next_event() is None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * 90_000


def test_connection_between_two_requests_holds_nothing_of_the_last() -> None:
    connection = Connection("command")
    tracemalloc.start()
    try:
        connection.receive_data(b"*2\r\n$4\r\nECHO\r\n$1000000\r\n%b" % bytes(500_000))
        assert connection.next_event() is None
        connection.receive_data(b"%b\r\n" % bytes(500_000))
        event = connection.next_event()
        assert event is not None
        del event
        assert connection.next_event() is None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000
