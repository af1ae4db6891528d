"""Handlers of pynetdicom's events: what they are bound by, and what they learn of their association."""

from collections.abc import Callable
from typing import Any, Protocol, cast

from pynetdicom.events import Event, EventType

from scp.observing.association_info import AssociationInfo
from scp.observing.association_record import AssociationRecord

Handler = tuple[EventType, Callable[[Event], Any]]


class Served(Protocol):
    """What services use of the association that they are called on."""

    record: AssociationRecord
    is_established: bool

    def post(self, work: Callable[[Any], None]) -> None:
        """Have `work` done with this association, between operations. Called from any thread."""


def association_of(event: Event) -> Served:
    """Return the association in which a pynetdicom event happened."""
    return cast("Served", event.assoc)


def record_of(event: Event) -> AssociationRecord:
    """Return the record of the association in which a pynetdicom event happened."""
    return association_of(event).record


def info_of(event: Event) -> AssociationInfo:
    """Return who calls whom on an event's association. Raises ValueError before the request."""
    return record_of(event).info
