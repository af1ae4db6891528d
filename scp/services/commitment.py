"""The Storage Commitment Push Model SOP Class as SCP (PS3.4 Annex J).

The answer to N-ACTION only confirms the request. N-EVENT-REPORT lists what is committed: on the same
association while the peer keeps it open, else on one of our own to the address in [[peers]].
"""

import threading
import time
from collections.abc import Callable
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.events import Event

from index import CommitmentReport, Index, IndexFault, cut_off
from scp.association.client import Unreachable, request_association
from scp.association.events import Handler, ServiceAssociation, association_of, record_of
from scp.observing.metrics import Metrics
from scp.settings.sections import Configuration
from scp.wire.status import (
    INVALID_ARGUMENT_VALUE,
    MISSING_ATTRIBUTE,
    NO_SUCH_ACTION_TYPE,
    NO_SUCH_SOP_INSTANCE,
    STORAGE_COMMITMENT,
    SUCCESS,
    error_comment,
    status_of,
)

log = structlog.get_logger("scp")

COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
# PS3.4 Tables J.3-1 and J.3-2: action type, event types.
REQUEST = 1
ALL_COMMITTED, SOME_FAILED = 1, 2

# A report is due so many seconds after the request: a peer that does not wait for it has released by then.
REPORT_DELAY = 1.0
# How soon a report that is due is looked at again while it cannot be made yet, in seconds.
LOOK_INTERVAL = 1.0
# How soon it is seen that another node has left a report behind, in seconds, and that the clock was set.
LOOK_SECONDS = 60.0
STOP_SECONDS = 5.0


class BadRequest(IndexFault):
    """Raised for an invalid request; `status` is its answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class CommitmentService:
    """Takes requests for commitment, and reports on them in a thread of its own.

    `configuration` returns the one in force, which a reload changes.
    """

    SERVICES = {COMMITMENT: "commitment"}  # noqa: RUF012  a constant

    def __init__(self, index: Index, configuration: Callable[[], Configuration], metrics: Metrics) -> None:
        self._commitments = index.commitments
        self._configuration = configuration
        self._metrics = metrics
        self._requesters: dict[int, ServiceAssociation] = {}
        self._asked = threading.Event()
        self._worker = index.workers.add("storage-commitment", self._run, depends=True)

    @property
    def handlers(self) -> list[Handler]:
        """The handlers that the listener binds."""
        return [(evt.EVT_N_ACTION, self._on_action)]

    def start(self) -> None:
        """Start the thread that reports."""
        self._worker.start()

    def stop(self) -> None:
        """Stop it. Reports that are due stay due."""
        self._worker.stopping.set()
        self._asked.set()
        self._worker.stop(STOP_SECONDS)

    def _on_action(self, event: Event) -> tuple[Dataset, None]:
        record_of(event).count("commitments")
        answer = self._accept(event)
        self._metrics.operation_answered("commitment", f"{answer.Status:04X}")
        return answer, None

    def _accept(self, event: Event) -> Dataset:
        record = record_of(event)
        answer = Dataset()
        try:
            transaction, references = _parse_request(event)
            peer = record.info.calling_aet
            row = self._commitments.ask(peer, transaction, references, REPORT_DELAY)
        except Exception as error:  # noqa: BLE001  becomes a status
            answer.Status = (
                error.status if isinstance(error, BadRequest) else status_of(error, STORAGE_COMMITMENT)
            )
            answer.ErrorComment = error_comment(error)
            record.log.warning("commitment_asked", status=f"{answer.Status:04X}", reason=str(error))
            return answer
        self._requesters[row] = association_of(event)
        self._asked.set()
        record.log.info(
            "commitment_asked", status="0000", transaction_uid=transaction, instances=len(references)
        )
        answer.Status = SUCCESS
        return answer

    def _run(self) -> None:
        while not self._worker.stopping.is_set():
            seconds: float | None = LOOK_INTERVAL
            try:
                for report in self._commitments.due(self._worker.wait):
                    self._worker.beat()
                    self._report(report)
                seconds = self._until_next()
            except Exception as error:  # such as a full disk: the thread goes on
                log.exception("commitment_failed")
                self._worker.failed(error)
            else:
                self._worker.done()
            with self._worker.waiting():
                self._asked.wait(seconds)
            self._asked.clear()

    def _until_next(self) -> float | None:
        """Return for how many seconds no report is due, unless one is asked for; None: none will be."""
        due = self._commitments.next_due()
        if due is None:
            return None if self._commitments.is_alone else LOOK_SECONDS
        seconds = due / 1000 - time.time()
        return min(seconds, LOOK_SECONDS) if seconds > 0 else LOOK_INTERVAL

    def _report(self, report: CommitmentReport) -> None:
        """Send a report. The attempt is noted first, in case the process ends before the outcome is."""
        self._commitments.postpone(report)
        requester = self._requesters.pop(report.id, None)
        if requester is not None and requester.is_established:
            requester.post(lambda association: self._deliver(report, association))
            return
        try:
            roles = [build_role(COMMITMENT, scp_role=True)]
            with request_association(self._configuration(), report.peer, COMMITMENT, roles) as association:
                self._deliver(report, association)
        except Unreachable as error:
            self._log_report(report, "undelivered", str(error))

    def _deliver(self, report: CommitmentReport, association: Association) -> None:
        if not association.is_established:
            return  # the report will be sent on another one
        kind = SOME_FAILED if report.failed else ALL_COMMITTED
        try:
            answer, _ = association.send_n_event_report(
                _dataset(report, self._configuration().dicom.aet), kind, COMMITMENT, WELL_KNOWN_INSTANCE
            )
        except (
            ValueError,
            RuntimeError,
        ) as error:  # no context in which we are the SCP, or the association has ended
            self._log_report(report, "undelivered", str(error))
            return
        status = answer.get("Status")
        if status == SUCCESS:
            self._commitments.delivered(report)
            self._log_report(report, "delivered")
        else:
            self._log_report(report, "undelivered", "no answer" if status is None else f"status {status:04X}")

    def _log_report(self, report: CommitmentReport, outcome: str, reason: str = "") -> None:
        (log.warning if reason else log.info)(
            "commitment_report",
            peer=report.peer,
            outcome=outcome,
            transaction_uid=report.transaction_uid,
            committed=len(report.committed),
            failed=len(report.failed),
            **({"reason": reason, "attempts": report.attempts + 1} if reason else {}),
        )


def _parse_request(event: Event) -> tuple[str, list[tuple[str, str]]]:
    """Return the transaction UID and the references of a request. Raises BadRequest."""
    request = cast("N_ACTION", event.request)
    if str(request.RequestedSOPInstanceUID) != WELL_KNOWN_INSTANCE:
        raise BadRequest(NO_SUCH_SOP_INSTANCE, f"the instance is {WELL_KNOWN_INSTANCE}")
    if event.action_type != REQUEST:
        raise BadRequest(NO_SUCH_ACTION_TYPE, f"action type {event.action_type}: allowed is {REQUEST}")
    try:
        information = event.action_information
        cut = cut_off(information)
        transaction = str(information.get("TransactionUID") or "")
        items = information.get("ReferencedSOPSequence") or []
        references = [
            (str(item.get("ReferencedSOPClassUID") or ""), str(item.get("ReferencedSOPInstanceUID") or ""))
            for item in items
        ]
    except Exception as error:  # pydicom may raise anything for invalid bytes
        raise BadRequest(INVALID_ARGUMENT_VALUE, f"cannot be read: {type(error).__name__}") from error
    if cut:
        raise BadRequest(INVALID_ARGUMENT_VALUE, f"{cut} ends within its value")
    if not transaction or not references or not all(all(reference) for reference in references):
        raise BadRequest(
            MISSING_ATTRIBUTE, "TransactionUID and ReferencedSOPSequence with its UIDs are needed"
        )
    return transaction, references


def _dataset(report: CommitmentReport, aet: str) -> Dataset:
    """Return the event information (PS3.4 Table J.3-2)."""
    made = Dataset()
    made.TransactionUID = report.transaction_uid
    made.RetrieveAETitle = aet
    made.ReferencedSOPSequence = [_item(sop_class, uid) for sop_class, uid in report.committed]
    if not report.committed:
        del made.ReferencedSOPSequence
    if report.failed:
        made.FailedSOPSequence = [_item(sop_class, uid, why) for sop_class, uid, why in report.failed]
    return made


def _item(sop_class: str, uid: str, why: int | None = None) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, uid
    if why is not None:
        made.FailureReason = why
    return made
