"""One association from connection to end: its id, its counts, its log events."""

from dataclasses import replace
from time import perf_counter
from uuid import uuid4

import structlog

from index import Received
from scp.observing.association_info import AssociationInfo

# Long enough to be unique in the logs of a site, short enough to read aloud.
ID_LENGTH = 12


class AssociationRecord:
    """Counts what happens on one association, and logs it at the end. Used by one thread."""

    def __init__(self, address: str) -> None:
        self.id = uuid4().hex[:ID_LENGTH]
        self.address = address
        self._info: AssociationInfo | None = None
        self.log = structlog.get_logger("scp").bind(association=self.id, address=address)
        self.operations: dict[str, int] = {}
        self.bytes = 0
        # By study, for the audit trail.
        self.received = Received()
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
        """Whether the association request has been read."""
        return self._info is not None

    def set_titles(self, calling_aet: str, called_aet: str) -> None:
        """Set the AE titles of the association request."""
        self.log = self.log.bind(calling_aet=calling_aet, called_aet=called_aet)
        self._info = AssociationInfo(self.id, calling_aet, called_aet, self.address, self.log)

    def log_tls(self, version: str | None, subject: str | None) -> None:
        """Log that the TLS handshake is done; `subject` is that of the caller's certificate, if any."""
        self.log = self.log.bind(tls=version, **({"tls_subject": subject} if subject else {}))
        self.log.debug("tls_established")

    def set_object_size(self, object_size: int | None) -> None:
        """Set the peer's own limit of an object's size."""
        self._info = replace(self.info, object_size=object_size)

    def log_accepted(self, contexts: int, refused: int) -> None:
        """Log that the association has been accepted, with the number of contexts accepted and refused."""
        self.accepted = True
        self.log.debug("association_accepted", contexts=contexts, contexts_refused=refused)

    def count(self, operation: str, size: int = 0) -> None:
        """Count an operation; `size` is that of its data set, in bytes."""
        self.operations[operation] = self.operations.get(operation, 0) + 1
        self.bytes += size

    def set_outcome(self, outcome: str, reason: str = "") -> None:
        """Set how the association ends; only the first call counts."""
        if not self._outcome:
            self._outcome, self.reason = outcome, reason

    @property
    def is_ending(self) -> bool:
        """Whether the outcome is known: only the connection is still to be closed."""
        return bool(self._outcome)

    def log_end(self) -> None:
        """Log the end, at level debug for a connection that closes before its request: a probe."""
        event: dict[str, object] = {"outcome": self._outcome or "aborted"}
        if self.reason:
            event["reason"] = self.reason
        event["seconds"] = round(perf_counter() - self.started, 3)
        if self._info is not None:
            log = self.log.warning if self._outcome == "aborted" else self.log.info
            log("association", **event, **self.operations, bytes=self.bytes)
        elif self._outcome == "closed" or not self.reason:
            self.log.debug("connection_without_request", **event)
        else:
            self.log.warning("connection_without_request", **event)
