"""A program of the lab in the background, to which its parent talks in messages (`lab.base.messages`)."""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO

from lab.base.errors import LabError, last_lines
from lab.base.messages import Kind, Message, decode, encode, is_message

_POLL_SECONDS = 0.005
_LONG_POLL_SECONDS = 0.1


@dataclass
class Helper:
    """A running program. The end of its stdin ends it.

    Args:
        name: for errors, as in `the latency probe`.
        process: the local process to wait for; its stdin is a pipe to the program.
        host: the name by which other helpers of this lab reach it.
        log: takes all of its output. A file, because a full pipe would block the program.
    """

    name: str
    process: "subprocess.Popen[bytes]"
    host: str
    log: IO[bytes]
    _read: int = 0
    _lines: list[str] = field(default_factory=list)

    def tell(self, message: Message) -> None:
        """Send a message. If the program has ended, the next `wait_for` reports it."""
        self.write(f"{encode(message)}\n".encode())

    def write(self, data: bytes) -> None:
        """Write to its stdin; see `tell`."""
        stdin = self.process.stdin
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or is being closed
            if stdin is not None:
                stdin.write(data)
                stdin.flush()

    def wait_for(self, kind: type[Kind], timeout: float, *, expected: float = 0.0) -> Kind:
        """Wait for the next message of a kind; others are kept.

        Args:
            timeout: seconds.
            expected: the least number of seconds that it takes; until then the output is read less often.

        Raises:
            LabError: the program has ended, took too long, or sent a malformed message; with its last lines.
        """
        found = self.poll_for(kind, timeout, expected=expected)
        if found is None:
            raise LabError(f"{self.name} sent no {kind.__name__} within {timeout:g} s{self.describe_output()}")
        return found

    def poll_for(self, kind: type[Kind], timeout: float, *, expected: float = 0.0) -> Kind | None:
        """Wait as `wait_for` does; return None at the timeout.

        Raises:
            LabError: the program has ended, or sent a malformed message; with its last lines.
        """
        begun = time.monotonic()
        while True:
            has_ended = self.process.poll() is not None
            if found := self.take(kind, at_most=1):
                return found[0]
            if has_ended:
                raise LabError(f"{self.name} ended with {self.describe_end()}")
            passed = time.monotonic() - begun
            if passed >= timeout:
                return None
            time.sleep(_POLL_SECONDS if passed >= expected else _LONG_POLL_SECONDS)

    def take(self, kind: type[Kind], *, at_most: int | None = None) -> list[Kind]:
        """Return the messages of a kind that have arrived, and forget them.

        Raises:
            LabError: the first one is malformed. It is dropped.
        """
        self._advance()
        found: list[Kind] = []
        waiting, self._lines = self._lines, []
        for number, line in enumerate(waiting):
            if len(found) == at_most:
                self._lines += waiting[number:]
                break
            try:
                message = decode(line, kind)
            except ValueError as error:
                # First return those before it, and raise the error at the next call.
                self._lines += waiting[number + (not found) :]
                if found:
                    break
                raise LabError(f"{self.name} sent {error}") from None
            if message is None:
                self._lines.append(line)
            else:
                found.append(message)
        return found

    def take_lines(self) -> list[str]:
        """Return the lines that have arrived and are no messages, and forget them."""
        self._advance()
        lines = [line for line in self._lines if not is_message(line)]
        self._lines = [line for line in self._lines if is_message(line)]
        return lines

    def output(self) -> str:
        """Return all that it has written."""
        return self._read_from(0).decode(errors="replace")

    def _advance(self) -> None:
        data = self._read_from(self._read)
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        self._lines += complete.decode(errors="replace").splitlines()

    def _read_from(self, offset: int) -> bytes:
        # Not `read`: the program shares the offset of this file.
        descriptor = self.log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size - offset, offset)

    def finish(self, timeout: float) -> int | None:
        """Close its stdin and wait until it has ended; return its exit code, or None if it took too long."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def describe_end(self) -> str:
        """Return its exit code and its last lines, for an error."""
        return f"exit code {self.process.poll()}{self.describe_output()}"

    def describe_output(self) -> str:
        """Return its last lines, for an error."""
        said = last_lines("\n".join(line for line in self.output().splitlines() if not is_message(line)))
        return "\n  ".join(["; its output ends with:", *said]) if said else "; it said nothing"
