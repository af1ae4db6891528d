"""What handlers of pynetdicom's events use of their association."""

from collections.abc import Callable
from typing import Any, Protocol, cast

from pynetdicom.events import Event, EventType

from scp.observing.association_record import AssociationRecord

Handler = tuple[EventType, Callable[[Event], Any]]


class ServiceAssociation(Protocol):
    """The association of an event, as services use it."""

    record: AssociationRecord
    is_established: bool

    def post(self, work: Callable[[Any], None]) -> None:
        """Have the association's thread do `work` between operations. Called from any thread."""

    def read_available(self) -> None:
        """Read what has arrived, such as C-CANCEL, while an operation runs. Called from its thread."""

    def extended(self, sop_class: str) -> bytes:
        """Return what was agreed on a SOP Class by extended negotiation (PS3.7 Section D.3.3.5)."""


def association_of(event: Event) -> ServiceAssociation:
    """Return the association in which a pynetdicom event happened."""
    return cast("ServiceAssociation", event.assoc)


def record_of(event: Event) -> AssociationRecord:
    """Return the record of the association in which a pynetdicom event happened."""
    return association_of(event).record
