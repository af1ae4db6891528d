"""The Instance Availability Notification SOP Class as SCU (PS3.4 Annex R), when a study is complete.

It rests on the outbox: each study is notified at least once to each peer with `notify = true`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from index import Index, IndexFault, Notification, Notifications, Waiting
from scp.association.client import Unreachable, interrupt, request_association
from scp.observing.metrics import Metrics
from scp.services.delivery import Delivery
from scp.services.mpps import MPPS
from scp.services.sending import NoResponse
from scp.settings.sections import Configuration
from scp.wire.status import DUPLICATE_SOP_INSTANCE, SUCCESS, WARNINGS, reason_for_peer

log = structlog.get_logger("scp")

AVAILABILITY = "1.2.840.10008.5.1.4.33"
# PS3.3 Section C.4.23.1.1: what is in the index can be had at once.
ONLINE = "ONLINE"

_STEPS, _SERIES = "ReferencedPerformedProcedureStepSequence", "ReferencedSeriesSequence"
_REFERENCES = "ReferencedSOPSequence"
# PS3.4 Table R.3.2-1, without the optional attributes of references. A sequence comes before what is in it.
ATTRIBUTES: Mapping[tuple[str, ...], str] = {
    (_STEPS,): "the step that made the instances; empty where none did",
    (_STEPS, "ReferencedSOPClassUID"): "Modality Performed Procedure Step",
    (_STEPS, "ReferencedSOPInstanceUID"): "of the step",
    (_STEPS, "PerformedWorkitemCodeSequence"): "empty",
    ("StudyInstanceUID",): "of the study",
    (_SERIES,): "one item for each series",
    (_SERIES, "SeriesInstanceUID"): "of the series",
    (_SERIES, _REFERENCES): "one item for each instance",
    (_SERIES, _REFERENCES, "ReferencedSOPClassUID"): "of the instance",
    (_SERIES, _REFERENCES, "ReferencedSOPInstanceUID"): "of the instance",
    (_SERIES, _REFERENCES, "InstanceAvailability"): ONLINE,
    (_SERIES, _REFERENCES, "RetrieveAETitle"): "our AE title",
}


@dataclass(frozen=True, slots=True)
class Notified:
    """What came of the notification of one study; see delivery.Outcome."""

    status: int | None
    reason: str = ""
    why: NoResponse | None = None

    @property
    def is_failed(self) -> bool:
        """Whether the peer has not been notified."""
        # A duplicate: the response to an earlier attempt was lost.
        return self.status not in (SUCCESS, DUPLICATE_SOP_INSTANCE) and not self.is_warning

    @property
    def is_warning(self) -> bool:
        """Whether the peer has taken it with a warning (PS3.7 Section C.4)."""
        return self.status in WARNINGS


class Notifying(Delivery[Waiting]):
    """Notifies peers. `configuration` returns the one in force, which a reload changes."""

    name = "notification"
    threads = 2

    def __init__(self, index: Index, configuration: Callable[[], Configuration], metrics: Metrics) -> None:
        self._notifications = index.completions.notifications
        super().__init__(self._notifications, index.workers)
        self._configuration = configuration
        self._metrics = metrics

    def reload(self) -> None:
        """Take over the peers of the configuration in force."""
        self._notifications.use(peer.aet for peer in self._configuration().peers if peer.notify)
        super().reload()

    def sender(self, peer: str) -> "_Sender":
        """See Delivery."""
        return _Sender(self._notifications, self._configuration, peer)

    def count(self, peer: str, outcome: str) -> None:
        """See Delivery."""
        self._metrics.notified(peer, outcome)


class _Sender:
    """Notifies one peer, over one association at a time."""

    def __init__(
        self, notifications: Notifications, configuration: Callable[[], Configuration], aet: str
    ) -> None:
        self._notifications = notifications
        self._configuration = configuration
        self._aet = aet
        self._open = ExitStack()
        self._association: Association | None = None
        self._is_interrupted = False

    def expect(self, batch: Sequence[Waiting]) -> None:
        """There is nothing to prepare."""

    def send(self, one: Waiting) -> Notified:
        """Send the notifications of a study. A study that has been deleted meanwhile has none."""
        outcome = Notified(SUCCESS)
        try:
            for notification in self._notifications.contents(one.uid):
                outcome = self._create(notification)
                if outcome.is_failed:
                    return outcome
        except Unreachable as error:
            return Notified(None, str(error), NoResponse.UNREACHABLE)
        except (IndexFault, OSError) as error:
            return Notified(None, reason_for_peer(error), NoResponse.NOT_SENT)
        return outcome

    def _create(self, notification: Notification) -> Notified:
        """Send one N-CREATE. Raises Unreachable."""
        association = self._associated()
        aet = self._configuration().dicom.aet
        try:
            answer, _ = association.send_n_create(dataset(notification, aet), AVAILABILITY, notification.uid)
        except (ValueError, RuntimeError) as error:  # the association has ended, or its context is unusable
            self.close()
            return Notified(None, f"peer {self._aet}: {error}", NoResponse.LOST)
        status = answer.get("Status")
        if status is None:
            self.close()
            return Notified(None, f"peer {self._aet}: no response", NoResponse.LOST)
        reason = "" if status == SUCCESS else f"answered {status:04X} {answer.get('ErrorComment', '')}"
        return Notified(status, reason.strip())

    def _associated(self) -> Association:
        """Return the association, opened where there is none. Raises Unreachable."""
        if self._association is None or not self._association.is_established:
            self.close()
            if self._is_interrupted:
                raise Unreachable("shutdown")
            request = request_association(self._configuration(), self._aet, AVAILABILITY)
            self._association = self._open.enter_context(request)
        return self._association

    def interrupt(self) -> None:
        """See PeerSender."""
        self._is_interrupted = True
        if association := self._association:
            interrupt(association)

    def close(self) -> None:
        """See PeerSender."""
        self._association = None
        self._open.close()


def dataset(notification: Notification, aet: str) -> Dataset:
    """Return a notification's data set: PS3.4 Table R.3.2-1, which forbids any other attribute."""
    made = Dataset()
    made.ReferencedPerformedProcedureStepSequence = (
        [_step(notification.step_uid)] if notification.step_uid else []
    )
    made.StudyInstanceUID = notification.study_uid
    made.ReferencedSeriesSequence = [
        _series(series, references, aet) for series, references in notification.series
    ]
    return made


def _step(uid: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = MPPS, uid
    made.PerformedWorkitemCodeSequence = []
    return made


def _series(uid: str, references: Sequence[tuple[str, str]], aet: str) -> Dataset:
    made = Dataset()
    made.SeriesInstanceUID = uid
    made.ReferencedSOPSequence = [_reference(*one, aet) for one in references]
    return made


def _reference(sop_class: str, uid: str, aet: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, uid
    made.InstanceAvailability = ONLINE
    made.RetrieveAETitle = aet
    return made
