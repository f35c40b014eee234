"""Conversations over blocking sockets, for the models without an event loop.

Such a model only decides where `serve_stream` runs: in the only thread, in a separate thread, or in a separate process.
The conversation itself is the same.
"""

import logging
import math
import select
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

from services.protocol import Close, Compute, GiveWay, Limits, Send, StreamConversation, Wait
from services.serving.closing import stop_accepting, stop_reading, warn_cut_off
from services.serving.idle import LOOKS, IdleWatch
from services.serving.listeners import RECEIVE_SIZE, Accepted, Listener
from services.serving.signals import stop_signals

log = logging.getLogger("services")


# Python's handler of a signal that comes just before a blocking call runs when the call returns: nothing interrupts it.
# So a call of `Drain` must return in time: grace period and this together are less than the 10 s of `docker stop`.
_LONGEST_CALL = 2.0

SetTimeouts = Callable[[socket.socket, float], None]


def set_kernel_timeouts(stream: socket.socket, seconds: float) -> None:
    """Set timeouts in the kernel, socket(7): Python's own socket timeouts cost a poll() before every call."""
    timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def serve_stream(
    stream: socket.socket,
    connection: StreamConversation,
    limits: Limits,
    sleep: Callable[[float], object] = time.sleep,
    set_timeouts: SetTimeouts = set_kernel_timeouts,
    give_way: Callable[[], object] = lambda: None,
    longest_call: float = math.inf,
) -> None:
    """Hold one conversation, from the first byte to the last stage of its close. The caller closes the socket.

    Sending blocks until the peer has taken everything, and nothing is read meanwhile. This is the back-pressure.

    Args:
        sleep: lets a Wait pass.
        set_timeouts: sets the socket's timeouts, which raise BlockingIOError or TimeoutError.
        give_way: lets other conversations run, if the kernel does not do that.
        longest_call: seconds after which a call that receives or sends returns, at the latest.
    """
    # One look after each time-out; the last of them is at the end of the idle time.
    looks = max(LOOKS, int(limits.idle / longest_call))
    set_timeouts(stream, limits.idle / (looks + 1))
    watch = IdleWatch(looks)
    try:
        while True:
            match connection.next_event():
                case None:
                    try:
                        data = stream.recv(RECEIVE_SIZE)
                    except (BlockingIOError, TimeoutError):
                        if watch.is_idle(stream.fileno()):
                            raise
                        continue
                    watch.news()
                    if data:
                        connection.receive_data(data)
                    else:
                        connection.receive_eof()
                case Send() as send:
                    _send_all(stream, send.data, watch)
                case Wait(seconds):
                    sleep(seconds)
                case GiveWay():
                    give_way()
                case Compute() as work:
                    connection.receive_digest(work.run())
                case Close(at_eof):
                    break
        if not at_eof:
            _linger(stream, limits.linger, set_timeouts, watch)
    except (BlockingIOError, TimeoutError):
        log.info("closed a connection that was idle for %g s", limits.idle)
    except OSError as error:
        log.debug("the peer is gone: %s", error.strerror)
    except Exception:  # and the thread or process goes on with the next client
        log.exception("a conversation ended in an error")


def serve_datagram(
    listener: Listener, data: bytes, peer: object, sleep: Callable[[float], object] = time.sleep
) -> None:
    connection = listener.datagram(data, peer)
    while (seconds := listener.answer(connection, peer)) is not None:
        sleep(seconds)


def _send_all(stream: socket.socket, data: bytes, watch: IdleWatch) -> None:
    """Send all data. The timeout of `sendall` would not say how much was sent, and whether the peer still reads."""
    sent = 0
    while sent < len(data):
        try:
            taken = stream.send(memoryview(data)[sent:] if sent else data)
        except (BlockingIOError, TimeoutError):
            if watch.is_idle(stream.fileno()):
                raise
        else:
            watch.news()
            sent += taken


def _linger(stream: socket.socket, seconds: float, set_timeouts: SetTimeouts, watch: IdleWatch) -> None:
    """Close the sending half, then read until the peer has closed too, for a while.

    A socket that is closed with unread data sends a reset, which can overtake the last reply and destroy it (RFC 2525,
    section 2.17). Reading until the peer closes gives the reply time to arrive. This time begins again while a slow
    reader takes data.
    """
    stream.shutdown(socket.SHUT_WR)
    watch.is_taking(stream.fileno())  # what it takes from now on
    while True:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            set_timeouts(stream, max(left, 0.000_001))  # a timeval of zero would mean for ever
            try:
                if not stream.recv(RECEIVE_SIZE):
                    return
            except (BlockingIOError, TimeoutError):
                break
        if not watch.is_taking(stream.fileno()):
            return


class StopSignal:
    """The stop signals as a descriptor, for a selector with the listening sockets."""

    def __init__(self) -> None:
        self.is_set = False
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        # A signal that comes between the check of is_set and the call that waits would go unnoticed until the next
        # client comes; the byte that Python writes here wakes the selector in any case.
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in stop_signals():
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True

    def fileno(self) -> int:
        """Return a descriptor that becomes readable with each signal that Python handles."""
        return self._receiver.fileno()

    def clear(self) -> None:
        """Make `fileno` wait for the next signal; `is_set` stays."""
        with suppress(BlockingIOError):
            self._receiver.recv(4096)

    def wait(self, deadline: float | None) -> None:
        """Wait for the next signal of any kind that has a handler, or for a time of `time.monotonic`."""
        timeout = None if deadline is None else max(deadline - time.monotonic(), 0)
        select.select([self._receiver], [], [], timeout)
        self.clear()

    def accept(self, listener: Listener) -> Accepted | None:
        """Accept a connection; None if there is none. If none can be accepted, pause, or until a signal comes."""
        accepted = listener.accept()
        if listener.shortage.pause:
            select.select([self._receiver], [], [], listener.shortage.pause)
        return accepted

    def close(self) -> None:
        """Close the descriptors. The handlers stay, so a second signal does no harm."""
        signal.set_wakeup_fd(-1)
        self._receiver.close()
        self._sender.close()


class Drain(StopSignal):
    """The stop signal of a process that holds one conversation at a time.

    While there is one, the handler closes the listening sockets, as nothing else can until it is over, and the reading
    half of the conversation. The kernel then delivers the data that has arrived and the end of the stream, so a blocked
    `recv` returns, and complete requests are answered. At the end of the grace period, an alarm interrupts the process.
    A signal that came just before the `recv` is handled up to two seconds later.
    """

    def __init__(self, listeners: list[Listener]) -> None:
        # Before the handlers: a signal may come as soon as there is one.
        self._listeners = listeners
        self._grace = listeners[0].limits.grace
        self._end_reading: Callable[[], object] | None = None  # of the conversation that is held
        signal.signal(signal.SIGALRM, self._on_alarm)
        super().__init__()

    def serve_stream(self, listener: Listener, stream: socket.socket, peer: object) -> None:
        """Hold one conversation that a signal may end. The caller closes the socket."""
        connection = listener.connection(peer)
        conversation = partial(serve_stream, stream, connection, listener.limits, longest_call=_LONGEST_CALL)
        self._hold(conversation, partial(stop_reading, stream.fileno(), connection))

    def serve_datagram(self, listener: Listener, data: bytes, peer: object) -> None:
        """Hold a conversation of one datagram."""
        self._hold(partial(serve_datagram, listener, data, peer), lambda: None)

    def close(self) -> None:
        """Close the descriptors, and switch off the alarm: it would kill an interpreter that has reset its handlers."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.is_set:
            self.is_set = True
            signal.setitimer(signal.ITIMER_REAL, max(self._grace, 0.000_001))  # zero would switch it off
            self._stop()

    def _hold(self, conversation: Callable[[], None], end_reading: Callable[[], object]) -> None:
        self._end_reading = end_reading
        if self.is_set:
            self._stop()
        try:
            conversation()
        finally:
            self._end_reading = None

    def _stop(self) -> None:
        # Otherwise the model is about to wait for a client, and closes the sockets itself.
        if self._end_reading is not None:
            stop_accepting(self._listeners)
            self._end_reading()

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        log.warning("the grace period of %g s is over: the conversation is cut off", self._grace)
        raise SystemExit(1)


class Conversations:
    """The conversations of a process that holds many at the same time, each in its own thread or greenlet.

    A conversation is counted from before its client is passed to a thread until its socket is closed, so the limit and
    a drain also count one whose thread does not run yet.
    """

    def __init__(
        self, set_timeouts: SetTimeouts = set_kernel_timeouts, give_way: Callable[[], object] = lambda: None
    ) -> None:
        self._set_timeouts = set_timeouts
        self._give_way = give_way
        self._lock = threading.Lock()
        self._none_left = threading.Condition(self._lock)
        self._streams: dict[socket.socket, StreamConversation] = {}
        self._count = 0
        self._draining = False
        self._cut = threading.Event()

    def __len__(self) -> int:
        return self._count

    def serve_stream(self, listener: Listener, stream: socket.socket, peer: object) -> None:
        """Hold one conversation, in the calling thread. The caller closes the socket."""
        connection = listener.connection(peer)
        with self._lock:
            self._streams[stream] = connection
            if self._draining:
                stop_reading(stream.fileno(), connection)
        try:
            serve_stream(stream, connection, listener.limits, self._cut.wait, self._set_timeouts, self._give_way)
        finally:
            with self._lock:
                del self._streams[stream]

    def serve_datagram(self, listener: Listener, data: bytes, peer: object) -> None:
        """Hold a conversation of one datagram, in the calling thread."""
        serve_datagram(listener, data, peer, self._cut.wait)

    def take(self, listener: Listener, stop: StopSignal) -> Callable[[], None] | None:
        """Accept a client, or receive a datagram, and count it.

        Returns:
            Its conversation, for a thread to call; None if there is none after all.
        """
        hold: Callable[[], None] | None = None
        if listener.is_datagram:
            if received := listener.receive():
                hold = partial(self.serve_datagram, listener, *received)
        elif accepted := stop.accept(listener):
            hold = partial(self._serve_and_close, listener, *accepted)
        if hold is None:
            return None
        self.begin()
        return partial(self._hold, hold)

    def _hold(self, conversation: Callable[[], None]) -> None:
        try:
            conversation()
        finally:
            self.end()

    def _serve_and_close(self, listener: Listener, stream: socket.socket, peer: object) -> None:
        with stream:
            self.serve_stream(listener, stream, peer)

    def begin(self) -> None:
        """Count a conversation that was accepted."""
        with self._lock:
            self._count += 1

    def end(self) -> None:
        """Count the end of a conversation whose socket is closed."""
        with self._lock:
            self._count -= 1
            if not self._count:
                self._none_left.notify_all()

    def drain(self, grace: float) -> bool:
        """Let every conversation answer complete requests, then end the remaining ones.

        Args:
            grace: seconds until then.

        Returns:
            Whether all ended by themselves.
        """
        with self._lock:
            self._draining = True
            for stream, connection in self._streams.items():
                stop_reading(stream.fileno(), connection)
            if self._none_left.wait_for(lambda: not self._count, grace):
                return True
            warn_cut_off(grace, self._count)
            self._cut.set()
            for stream in self._streams:
                with suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
        return False


@contextmanager
def selector_of(listeners: list[Listener], stop: StopSignal) -> Iterator[selectors.BaseSelector]:
    """Return a selector over all listening sockets (data: the listener) and the stop signal (data: None)."""
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            selector.register(listener.socket, selectors.EVENT_READ, listener)
        selector.register(stop, selectors.EVENT_READ, None)
        yield selector
