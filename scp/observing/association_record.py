"""One association from connection to end: its id, its counts, its log events."""

from dataclasses import replace
from time import perf_counter
from uuid import uuid4

import structlog

from scp.observing.association_info import Link

# Enough to tell the associations of a site's logs apart, short enough to read aloud.
ID_LENGTH = 12


class Session:
    """Counts what happens on one association and says it once, when it is over. Used by one thread."""

    def __init__(self, address: str) -> None:
        self.id = uuid4().hex[:ID_LENGTH]
        self.address = address
        self.link: Link | None = None
        self.log = structlog.get_logger("scp").bind(association=self.id, address=address)
        self.operations: dict[str, int] = {}
        self.bytes = 0
        self.accepted = False
        self._outcome = ""
        self.reason = ""
        self.started = perf_counter()

    @property
    def known_link(self) -> Link:
        """Who we talk with. Raises ValueError before the association request."""
        if self.link is None:
            raise ValueError("no association request has been read yet")
        return self.link

    def requested(self, calling_aet: str, called_aet: str) -> Link:
        """The association request has been read."""
        self.log = self.log.bind(calling_aet=calling_aet, called_aet=called_aet)
        self.link = Link(self.id, calling_aet, called_aet, self.address, self.log)
        return self.link

    def secured(self, version: str | None, subject: str | None) -> None:
        """The TLS handshake is done; `subject` is of the caller's certificate, if it showed one."""
        self.log = self.log.bind(tls=version, **({"tls_subject": subject} if subject else {}))
        self.log.debug("tls_established")

    def admitted(self, object_size: int | None) -> None:
        """The association will be accepted, with the peer's own limit of an object's size."""
        self.link = replace(self.known_link, object_size=object_size)

    def established(self, contexts: int, refused: int) -> None:
        """The association has been accepted with so many presentation contexts, and so many refused."""
        self.accepted = True
        self.log.debug("association_accepted", contexts=contexts, contexts_refused=refused)

    def did(self, operation: str, size: int = 0) -> None:
        """An operation has been answered; `size` is of the data set received, in bytes."""
        self.operations[operation] = self.operations.get(operation, 0) + 1
        self.bytes += size

    def ending(self, outcome: str, reason: str = "") -> None:
        """Note how the association comes to its end; the first to know is right."""
        if not self._outcome:
            self._outcome, self.reason = outcome, reason

    @property
    def is_ending(self) -> bool:
        """Tell whether the association comes to its end, or is over but for the connection."""
        return bool(self._outcome)

    def over(self) -> None:
        """Log the end. Connections that just close before a request are probes: debug."""
        event: dict[str, object] = {"outcome": self._outcome or "aborted"}
        if self.reason:
            event["reason"] = self.reason
        event["seconds"] = round(perf_counter() - self.started, 3)
        if self.link is not None:
            say = self.log.warning if self._outcome == "aborted" else self.log.info
            say("association", **event, **self.operations, bytes=self.bytes)
        elif self._outcome == "closed" or not self.reason:
            self.log.debug("connection_without_request", **event)
        else:
            self.log.warning("connection_without_request", **event)
