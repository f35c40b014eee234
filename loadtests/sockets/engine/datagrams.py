"""Exchanges in datagrams: replies can be lost, doubled and overtaken, and there is no connection that could break."""

from collections import deque

from loadtests.sockets.engine.connection import (
    AWAY,
    CONNECTING,
    GREETING,
    HANDSHAKE,
    IN,
    OUT,
    SENDING,
    WAITING,
    ConnectionGroup,
    Loop,
)
from loadtests.sockets.engine.exchanges import ExchangeConnection
from loadtests.sockets.failures import LostError, WrongBytesError, translate


class DatagramConnection(ExchangeConnection):
    """A connected datagram socket."""

    __slots__ = ("awaiting", "highest", "lost", "queue")

    def __init__(self, group: ConnectionGroup, loop: Loop) -> None:
        super().__init__(group, loop)
        # Of numbered datagrams: the replies that are due, by number; numbers that timed out; the highest that was
        # answered.
        self.awaiting: dict[int, bytes] = {}
        self.lost: set[int] = set()
        self.highest = -1
        # Datagrams that a Unix socket has no room for yet.
        self.queue: deque[bytes] = deque()

    def ready(self, now: float) -> None:
        self.awaiting, self.highest = {}, -1
        self.lost.clear()
        super().ready(now)

    def close(self) -> None:
        self.queue.clear()
        super().close()

    def send_request(self, now: float) -> None:
        if self.group.exchange.numbered:
            self.received = 0
            self._send_numbered(now)
        else:
            super().send_request(now)

    def flush(self, now: float) -> bool:
        if not self.queue:
            return super().flush(now)
        try:
            while self.queue:
                self.send(self.queue[0])
                self.queue.popleft()
        except BlockingIOError:
            return True
        except OSError as error:
            self.fail(translate(error), now)
            return False
        self.state = WAITING
        self.loop.change(self, IN)
        return True

    def receive(self, data: bytes, now: float) -> None:
        if self.state == GREETING:
            super().receive(data, now)
        elif self.group.exchange.numbered:
            self._receive_numbered(data, now)
        elif not self.busy:
            self.group.tally.duplicates += 1
        elif self.group.codec is not None:
            self.receive_coded(self.group.codec, data, now)
        elif data == self.expected:
            self.answer(now)
        else:
            self.fail(WrongBytesError(), now)

    def check_time(self, now: float) -> None:
        if not self.busy or self.state in (AWAY, CONNECTING, HANDSHAKE):
            super().check_time(now)
            return
        self.group.tally.lost += len(self.awaiting) or 1
        self.lost.update(self.awaiting)
        self.awaiting = {}
        self.fail(LostError(), now)

    def _send_numbered(self, now: float) -> None:
        self.state, self.expected = WAITING, None
        turns = [next(self.turns) for _ in range(self.group.exchange.depth)]
        self.awaiting = {int.from_bytes(reply[:8], "big"): reply for _, reply in turns}
        if self.queue:  # of an exchange that has timed out
            self.queue.clear()
            self.loop.change(self, IN)
        for at, (request, _) in enumerate(turns):
            try:
                self.send(request)
            except BlockingIOError:
                if self.group.address.transport == "unixgram":
                    # Unix datagrams are reliable, unix(7), DESCRIPTION: the rest leaves when the server has received
                    # some. Its queue holds ten by default: sysctl net.unix.max_dgram_qlen.
                    self.queue.extend(request for request, _ in turns[at:])
                    self.state = SENDING
                    self.loop.change(self, IN | OUT)
                    return
                # The send buffer is full, send(2), ERRORS, EAGAIN: this datagram is lost, as others are on the way.
            except OSError as error:
                self.fail(translate(error), now)
                return

    def _receive_numbered(self, data: bytes, now: float) -> None:
        tally = self.group.tally
        number = int.from_bytes(data[:8], "big")
        expected = self.awaiting.get(number)
        if expected is not None:
            if data != expected:
                self.fail(WrongBytesError(), now)
                return
            del self.awaiting[number]
            tally.reordered += number < self.highest
            self.highest = max(self.highest, number)
            if not self.awaiting:
                self.answer(now)
        elif number in self.lost:
            self.lost.discard(number)
            tally.reordered += 1  # it came, but after others that were sent later
        elif number <= self.highest:
            tally.duplicates += 1
        else:
            self.fail(WrongBytesError(), now)
