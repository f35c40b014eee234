"""A log for lines that each connection may cause: no client can fill it."""

import logging
import mmap
import struct
import time
from collections.abc import Callable

_SECONDS = 60.0
_STATE = struct.Struct("dq")  # when the next line may be written, and how many were left out


class SparseLog:
    """Write at most one line a minute; the next one says how many were left out.

    Processes that are forked later share it: in a model that has one for each client, all are first in their own.

    Args:
        log: where the lines go.
        clock: seconds that never go back, the same for all processes.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._shared = mmap.mmap(-1, _STATE.size)  # of zeros: the first line may be written at once

    def warning(self, text: str) -> None:
        """Write a line, or count it."""
        now = self._clock()
        start, left_out = _STATE.unpack_from(self._shared)
        if now < start:
            _STATE.pack_into(self._shared, 0, start, left_out + 1)
            return
        _STATE.pack_into(self._shared, 0, now + _SECONDS, 0)
        self._log.warning("%s%s", text, f" (and {left_out} more before)" if left_out else "")
