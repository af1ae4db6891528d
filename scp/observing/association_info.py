"""Who we talk with on one association, for handlers and for log events."""

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from index import Origin


@dataclass(frozen=True, slots=True)
class AssociationInfo:
    """One association as services see it. `log` is bound to its id, the peer's AE title and address."""

    id: str
    calling_aet: str
    called_aet: str
    address: str
    log: FilteringBoundLogger
    # The largest object that is kept from this peer, in bytes; None: as for everybody.
    object_size: int | None = None

    @property
    def origin(self) -> Origin:
        """The same for the index, which remembers where each instance came from."""
        return Origin(self.calling_aet, self.called_aet, self.address, self.id)
