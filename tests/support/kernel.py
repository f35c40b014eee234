"""A kernel out of resources: chosen errors of `accept` in a process and its children.

ENFILE, ENOBUFS and ENOMEM concern the whole machine, so no test may provoke them. Instead, the kernel asks this process
for the result of the system call (seccomp's user notification), whatever loop or library makes it. The process that
becomes the server installs the filter: `python -m tests.support.kernel SOCKET COMMAND ...`.
"""

import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import threading
from collections import Counter
from contextlib import suppress

# seccomp(2), and accept(2) and accept4(2), by machine.
_SECCOMP, _ACCEPTS = {"x86_64": (317, (43, 288)), "aarch64": (277, (202, 242))}[os.uname().machine]

# <linux/prctl.h>, <linux/seccomp.h>, <linux/filter.h>.
_NO_NEW_PRIVILEGES = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_QUESTION = struct.Struct("<QII iIQ 6Q")  # id, pid, flags; number, architecture, instruction pointer, arguments
_ANSWER = struct.Struct("<QqiI")  # id, value, error, flags
_CONTINUE = 1


def _install() -> int:
    """Install the filter for accept in this process; return the descriptor of its notifications."""
    first, second = _ACCEPTS
    steps = [
        (_LOAD, 0, 0, 0),  # the number of the call
        (_JUMP_EQUAL, 1, 0, first),
        (_JUMP_EQUAL, 0, 1, second),
        (_RETURN, 0, 0, _ASK),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    descriptor = int(libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, program))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "seccomp: this kernel has no user notification")
    return descriptor


class Kernel:
    """Answer the kernel's questions in a thread until the last process has ended.

    `number` is the error of accept, or 0; `failed` counts the failures by number.
    """

    def __init__(self) -> None:
        self.number = 0
        self.failed: Counter[int] = Counter()
        self._ours, self.theirs = socket.socketpair()
        threading.Thread(target=self._answer, daemon=True).start()

    def command(self, *words: str) -> list[str]:
        """Return the command that starts another one with this kernel; it must inherit `theirs`."""
        return [sys.executable, "-m", "tests.support.kernel", str(self.theirs.fileno()), *words]

    def _answer(self) -> None:
        with self._ours:
            _, found, _, _ = socket.recv_fds(self._ours, 1, 1)
        for descriptor in found:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while poll.poll()[0][1] == select.POLLIN:  # POLLHUP: the last process has ended
                with suppress(FileNotFoundError):  # the calling process has ended
                    self._answer_one(descriptor)
            os.close(descriptor)

    def _answer_one(self, descriptor: int) -> None:
        question = bytearray(_QUESTION.size)
        fcntl.ioctl(descriptor, _RECEIVE, question)
        number = self.number
        answer = _ANSWER.pack(_QUESTION.unpack(question)[0], 0, -number, 0 if number else _CONTINUE)
        fcntl.ioctl(descriptor, _SEND, bytearray(answer))
        self.failed[number] += 1


def main() -> None:
    """Install the filter, send its descriptor to the parent, and execute the command."""
    with socket.socket(fileno=int(sys.argv[1])) as link:
        descriptor = _install()
        socket.send_fds(link, [b"."], [descriptor])
    os.close(descriptor)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  # the server under test


if __name__ == "__main__":
    main()
