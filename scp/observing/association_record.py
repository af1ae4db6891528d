"""One association from connection to end: its id, its counts, its log events."""

from dataclasses import replace
from time import perf_counter
from uuid import uuid4

import structlog

from scp.observing.association_info import AssociationInfo

# Enough to tell the associations of a site's logs apart, short enough to read aloud.
ID_LENGTH = 12


class AssociationRecord:
    """Counts what happens on one association and says it once, when it is over. Used by one thread."""

    def __init__(self, address: str) -> None:
        self.id = uuid4().hex[:ID_LENGTH]
        self.address = address
        self._info: AssociationInfo | None = None
        self.log = structlog.get_logger("scp").bind(association=self.id, address=address)
        self.operations: dict[str, int] = {}
        self.bytes = 0
        self.accepted = False
        self._outcome = ""
        self.reason = ""
        self.started = perf_counter()

    @property
    def info(self) -> AssociationInfo:
        """AE titles and address. Raises ValueError before the association request."""
        if self._info is None:
            raise ValueError("no association request has been read yet")
        return self._info

    @property
    def is_requested(self) -> bool:
        """Tell whether the association request has been read."""
        return self._info is not None

    def requested(self, calling_aet: str, called_aet: str) -> None:
        """The association request has been read."""
        self.log = self.log.bind(calling_aet=calling_aet, called_aet=called_aet)
        self._info = AssociationInfo(self.id, calling_aet, called_aet, self.address, self.log)

    def secured(self, version: str | None, subject: str | None) -> None:
        """The TLS handshake is done; `subject` is of the caller's certificate, if it showed one."""
        self.log = self.log.bind(tls=version, **({"tls_subject": subject} if subject else {}))
        self.log.debug("tls_established")

    def admitted(self, object_size: int | None) -> None:
        """The association will be accepted, with the peer's own limit of an object's size."""
        self._info = replace(self.info, object_size=object_size)

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
        if self._info is not None:
            say = self.log.warning if self._outcome == "aborted" else self.log.info
            say("association", **event, **self.operations, bytes=self.bytes)
        elif self._outcome == "closed" or not self.reason:
            self.log.debug("connection_without_request", **event)
        else:
            self.log.warning("connection_without_request", **event)
