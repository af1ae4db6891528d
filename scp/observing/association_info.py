"""Titles and address of one association, for services, log events and the index."""

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from index import Origin


@dataclass(frozen=True, slots=True)
class AssociationInfo:
    """One association. `log` is bound to its id, the AE titles and the address."""

    id: str
    calling_aet: str
    called_aet: str
    address: str
    log: FilteringBoundLogger
    # The largest object that is kept from this peer, in bytes; None: the limit for all callers.
    object_size: int | None = None

    @property
    def origin(self) -> Origin:
        """The origin of its instances, as the index keeps it."""
        return Origin(self.calling_aet, self.called_aet, self.address, self.id)
