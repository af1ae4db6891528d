"""Callers beyond the limit: their request is read, then rejected as transient, local limit (PS3.8 9.3.4).

They share the listener's thread and selector, and none can make it wait. A caller that may be one of
[[peers]] is handed back with what has been read: some associations are kept for peers.
"""

import contextlib
import selectors
import socket
from collections.abc import Callable
from time import monotonic

import structlog

from scp.association.admission import Rejection
from scp.observing.metrics import Metrics
from scp.wire.associate_rq import Titles, parse_titles
from scp.wire.pdus import A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, PDU_HEADER, PDU_LENGTHS

# The most callers at one time: for one more, the oldest is cut off.
MAX_CALLERS = 64

# How long an association request may take before the rejection, in seconds.
REQUEST_SECONDS = 5.0

# The most that is read at one time, in bytes.
READ_LENGTH = 64 * 1024

# How long the caller has to read the rejection and to close, in seconds.
CLOSE_SECONDS = 1.0

# In the metrics: the reason of a caller whose connection was closed without a rejection.
NOT_ANSWERED = "cut_off"

_ANSWER = PDU_HEADER.pack(A_ASSOCIATE_RJ, 4) + bytes((0, *Rejection.LOCAL_LIMIT.value))


class _Caller:
    """A connection beyond the limit."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.connection = connection
        self.address = address
        self.deadline = monotonic() + REQUEST_SECONDS
        self.received = bytearray()
        self.answered = False


class CallerRejecter:
    """Rejects callers beyond the limit, in the listener's own selector. Used by one thread.

    `serve_peer` is given a connection, its address, the calling AE title, and all that has been read. It
    returns whether it has taken the connection.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        metrics: Metrics,
        serve_peer: Callable[[socket.socket, str, str, bytes], bool],
    ) -> None:
        self._selector = selector
        self._metrics = metrics
        self._serve_peer = serve_peer
        self._callers: set[_Caller] = set()
        self._log = structlog.get_logger("scp")

    def take(self, connection: socket.socket, address: str) -> None:
        """Take a connection to be rejected."""
        if len(self._callers) >= MAX_CALLERS:
            first = min(self._callers, key=lambda caller: caller.deadline)
            self._log.warning(
                "association_refused", address=first.address, why="too many callers beyond the limit"
            )
            self._metrics.association_refused(NOT_ANSWERED, address=first.address)
            self._drop(first)
        connection.setblocking(False)
        self._watch(_Caller(connection, address))

    def serve(self, caller: _Caller) -> None:
        """Read what a caller sent; reject it when its request is complete."""
        try:
            data = caller.connection.recv(READ_LENGTH)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(caller)
        elif not caller.answered:  # after the rejection, what still comes is dropped
            caller.received += data
            self._handle_request(caller)

    def timeout(self) -> float | None:
        """Return the seconds until the next deadline, or None."""
        if not self._callers:
            return None
        return max(0.0, min(caller.deadline for caller in self._callers) - monotonic())

    def expire(self) -> None:
        """Drop the callers whose deadline has passed."""
        now = monotonic()
        for caller in [caller for caller in self._callers if caller.deadline <= now]:
            self._drop(caller)

    def close(self) -> None:
        """Drop all callers."""
        for caller in list(self._callers):
            self._drop(caller)

    def _handle_request(self, caller: _Caller) -> None:
        if len(caller.received) < PDU_HEADER.size:
            return
        kind, length = PDU_HEADER.unpack_from(caller.received)
        least, most = PDU_LENGTHS[A_ASSOCIATE_RQ]
        if kind != A_ASSOCIATE_RQ or not least <= length <= most:
            self._drop(caller)
        elif len(caller.received) >= PDU_HEADER.size + length:
            received = bytes(caller.received)
            titles = parse_titles(received[PDU_HEADER.size :])
            self._forget(caller)
            if not self._serve_peer(caller.connection, caller.address, titles.calling, received):
                self._watch(caller)
                self._reject(caller, titles)

    def _reject(self, caller: _Caller, titles: Titles) -> None:
        caller.received.clear()
        caller.answered = True
        caller.deadline = monotonic() + CLOSE_SECONDS
        self._log.warning(
            "association_refused",
            address=caller.address,
            calling_aet=titles.calling,
            called_aet=titles.called,
            why="limit of associations",
            rejected="2/3/2",
        )
        reason = Rejection.LOCAL_LIMIT.name.lower()
        self._metrics.association_refused(reason, titles.calling, caller.address)
        try:
            caller.connection.send(_ANSWER)
            # To close at once could reset the connection before the peer has read the answer.
            caller.connection.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(caller)

    def _drop(self, caller: _Caller) -> None:
        self._forget(caller)
        caller.connection.close()

    def _watch(self, caller: _Caller) -> None:
        self._callers.add(caller)
        self._selector.register(caller.connection, selectors.EVENT_READ, caller)

    def _forget(self, caller: _Caller) -> None:
        self._callers.discard(caller)
        with contextlib.suppress(KeyError):
            self._selector.unregister(caller.connection)
