"""C-MOVE and C-GET as SCP (PS3.4 Sections C.4.2 and C.4.3), Patient Root and Study Root.

The sub-operations run on the association's own thread. Objects go from their files to the peer.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode
from pynetdicom.presentation import PresentationContext

from index import BadIdentifier, Index, InstanceSelection
from scp.association.client import Unreachable, address_of
from scp.association.store_association import AssociationLost, StoreChannel
from scp.observing.association_record import AssociationRecord
from scp.observing.audit import events
from scp.observing.audit.codes import DESTINATION
from scp.observing.audit.messages import Party
from scp.observing.metrics import Metrics
from scp.services.sending import Sender, Sent, send_instance
from scp.settings.sections import Configuration
from scp.wire.command_set import (
    C_GET_RQ,
    C_MOVE_RQ,
    MoveOriginator,
    Suboperations,
    encode_retrieve_response,
)
from scp.wire.status import (
    CANCELLED,
    CANNOT_COUNT,
    CANNOT_PERFORM_SUBOPERATIONS,
    IDENTIFIER_DOES_NOT_MATCH,
    MOVE_DESTINATION_UNKNOWN,
    PENDING,
    SOP_CLASS_NOT_SUPPORTED,
    SUBOPERATIONS_FAILED,
    SUCCESS,
    UNABLE_TO_PROCESS,
    error_comment,
    reason_for_peer,
)

if TYPE_CHECKING:
    from scp.observing.audit.trail import AuditTrail

PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"

OPERATIONS = {
    PATIENT_ROOT_MOVE: C_MOVE_RQ,
    STUDY_ROOT_MOVE: C_MOVE_RQ,
    PATIENT_ROOT_GET: C_GET_RQ,
    STUDY_ROOT_GET: C_GET_RQ,
}
_PATIENT_ROOT = (PATIENT_ROOT_MOVE, PATIENT_ROOT_GET)

# Instances of one retrieval of which the log says why they failed; the count has them all.
FAILURES_LOGGED = 10

# FailedSOPInstanceUIDList (PS3.4 Section C.4.2.1.4.2).
_FAILED_UIDS = (0x0008, 0x0058)
_LONGEST_UI = 0xFFFE  # bytes of a value with a length of 16 bits (PS3.5 Section 7.1.2)


class RetrieveRequester(StoreChannel, Protocol):
    """The peer that sent a C-MOVE or C-GET, on its association."""

    on_interrupt: Callable[[], None] | None
    """What ends the retrieval at once; called from another thread."""

    @property
    def record(self) -> AssociationRecord:
        """The record of its association."""

    def is_gone(self) -> bool:
        """Read what has arrived, without waiting; return whether its association has ended."""

    def is_cancelled(self, message_id: int) -> bool:
        """Whether its C-CANCEL for this request has been read."""

    def respond(self, context_id: int, encoded: bytes, identifier: bytes = b"") -> None:
        """Send a response."""


class Refused(Exception):
    """Raised when a request is not served; `status` is its answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class RetrieveService:
    """Serves C-MOVE and C-GET. `configuration` returns the one in force, which a reload changes."""

    SERVICES = dict.fromkeys(OPERATIONS, "retrieve")
    handlers = ()

    def __init__(self, index: Index, configuration: Callable[[], Configuration], metrics: Metrics) -> None:
        self._retrieval = index.retrieval
        self._configuration = configuration
        self._metrics = metrics

    def serve(
        self, requester: RetrieveRequester, request: C_MOVE | C_GET, context: PresentationContext
    ) -> None:
        """Serve a request to its final response. Never raises for what it brings up."""
        requester.record.count("retrieves")
        retrieve = _Retrieve(requester, request, context)
        try:
            retrieve.begin(self._select(retrieve))
            retrieve.audit(self._metrics.audit, begins=True)
            self._send_all(retrieve)
        except Refused as error:
            retrieve.end(error.status, str(error))
        except Exception as error:
            retrieve.log.exception("retrieve_failed")
            retrieve.end(CANNOT_PERFORM_SUBOPERATIONS, reason_for_peer(error))
        retrieve.audit(self._metrics.audit, begins=False)
        self._metrics.operation_answered("retrieve", f"{retrieve.status:04X}")

    def _select(self, retrieve: "_Retrieve") -> InstanceSelection:
        """Return what is asked for. Raises Refused."""
        if OPERATIONS.get(retrieve.sop_class_uid) != retrieve.field:
            raise Refused(SOP_CLASS_NOT_SUPPORTED, "not an operation of this SOP Class")
        if retrieve.destination is not None:
            try:
                address_of(self._configuration(), retrieve.destination)
            except Unreachable as error:
                raise Refused(MOVE_DESTINATION_UNKNOWN, str(error)) from error
        identifier = retrieve.identifier()
        try:
            return self._retrieval.select(identifier, patient_root=retrieve.sop_class_uid in _PATIENT_ROOT)
        except BadIdentifier as error:
            raise Refused(IDENTIFIER_DOES_NOT_MATCH, str(error)) from error
        except Exception as error:
            retrieve.log.exception("retrieve_failed")
            raise Refused(CANNOT_COUNT, reason_for_peer(error)) from error

    def _send_all(self, retrieve: "_Retrieve") -> None:
        if retrieve.destination is None:
            retrieve.follow(self._get(retrieve))
            return
        originator = MoveOriginator(retrieve.requester.record.info.calling_aet, retrieve.message_id)
        sender = Sender(
            self._retrieval, self._configuration, retrieve.destination, originator, retrieve.is_over
        )
        retrieve.requester.on_interrupt = sender.interrupt
        try:
            retrieve.follow(sender.send_all(retrieve.selection))
        finally:
            retrieve.requester.on_interrupt = None
            sender.close()

    def _get(self, retrieve: "_Retrieve") -> Iterator[Sent]:
        for instance in retrieve.selection.instances():
            try:
                yield send_instance(self._retrieval, retrieve.requester, instance)
            except AssociationLost as error:
                yield Sent(instance, None, str(error))


class _Retrieve:
    """One request: its parameters, its counts and its responses."""

    selection: InstanceSelection
    # What the audit trail was told of, once it has begun.
    _studies: Mapping[str, Mapping[str, int]] | None = None

    def __init__(
        self, requester: RetrieveRequester, request: C_MOVE | C_GET, context: PresentationContext
    ) -> None:
        self.requester = requester
        self.log = requester.record.log
        self._request = request
        self._context = context
        self._syntax = context.transfer_syntax[0]
        self.field = C_MOVE_RQ if isinstance(request, C_MOVE) else C_GET_RQ
        self.sop_class_uid = str(request.AffectedSOPClassUID)
        self.message_id = cast("int", request.MessageID)
        # The AE title of a C-MOVE's destination; None: a C-GET.
        self.destination = str(request.MoveDestination).strip() if isinstance(request, C_MOVE) else None
        self._started = perf_counter()
        self._total = self._completed = self._warnings = 0
        self._failed: list[str] = []
        self.status = SUCCESS

    def identifier(self) -> Dataset:
        """Return the identifier. Raises Refused where it cannot be read."""
        syntax = self._syntax
        try:
            return decode(
                cast("BytesIO", self._request.Identifier), syntax.is_implicit_VR, syntax.is_little_endian
            )
        except Exception as error:  # pydicom may raise anything for invalid bytes
            raise Refused(UNABLE_TO_PROCESS, f"identifier: {type(error).__name__}") from error

    def begin(self, selection: InstanceSelection) -> None:
        """Set what is to be sent."""
        self.selection = selection
        self._total = selection.total

    def follow(self, results: Iterator[Sent]) -> None:
        """Count the sub-operations as they end, tell the requester, and end with the last one or a cancel."""
        while True:
            if self.requester.is_gone():
                self.end(CANCELLED, "the requester's association has ended")
                return
            if self.requester.is_cancelled(self.message_id):
                self.end(CANCELLED)
                return
            sent = next(results, None)
            if sent is None:
                break
            self._count(sent)
            if self._remaining:
                self._respond(PENDING)
        if not self._failed:
            self.end(SUBOPERATIONS_FAILED if self._warnings else SUCCESS)
        elif self._completed or self._warnings:
            self.end(SUBOPERATIONS_FAILED, f"{len(self._failed)} of {self._total} failed; see the log")
        else:
            self.end(CANNOT_PERFORM_SUBOPERATIONS, self._last_reason)

    def audit(self, audit: "AuditTrail | None", *, begins: bool) -> None:
        """Tell the audit trail of what is, or was, sent: by study."""
        if audit is None:
            return
        if begins:
            self._studies = self.selection.by_study()
        info = self.requester.record.info
        requester = events.sender_of(info)
        # The requester of a C-GET receives; that of a C-MOVE may have another do so.
        aet = info.calling_aet.strip() if self.destination is None else self.destination
        is_other = self.destination not in (None, info.calling_aet.strip())
        to = Party(aet, DESTINATION, aet, "" if is_other else info.address, is_requestor=not is_other)
        failed = not begins and bool(self._failed or self.status not in (SUCCESS, SUBOPERATIONS_FAILED))
        why = f"{len(self._failed)} of {self._total} failed, status {self.status:04X}" if failed else ""
        made = events.transfer(
            audit.source,
            replace(requester, role=None),
            to,
            self._studies or {},
            begins=begins,
            outcome=events.outcome_of(failed=failed),
            why=why,
        )
        audit.put_all(made)

    def is_over(self) -> bool:
        """Whether the requester has cancelled it, or its association has ended."""
        return self.requester.is_gone() or self.requester.is_cancelled(self.message_id)

    def _count(self, sent: Sent) -> None:
        self._completed += sent.status == SUCCESS
        self._warnings += sent.is_warning
        if not sent.is_failed:
            return
        self._failed.append(sent.instance.uid)
        self._last_reason = sent.reason
        if len(self._failed) <= FAILURES_LOGGED:
            self.log.warning(
                "retrieve_instance_failed", sop_instance_uid=sent.instance.uid, reason=sent.reason
            )

    @property
    def _remaining(self) -> int:
        return max(0, self._total - self._completed - self._warnings - len(self._failed))

    def end(self, status: int, reason: str = "") -> None:
        """Send the final response, and log it without patient data."""
        self.status = status
        self._respond(status, reason)
        (self.log.warning if reason or status not in (SUCCESS, CANCELLED) else self.log.info)(
            "retrieve",
            operation="C-GET" if self.destination is None else "C-MOVE",
            destination=self.destination,
            status=f"{status:04X}",
            instances=self._total,
            completed=self._completed,
            warnings=self._warnings,
            failed=len(self._failed),
            seconds=round(perf_counter() - self._started, 4),
            **({"reason": reason} if reason else {}),
        )

    def _respond(self, status: int, reason: str = "") -> None:
        # Only Pending and Cancel tell what remains (PS3.4 Table C.4-2).
        remaining = self._remaining if status in (PENDING, CANCELLED) else None
        counts = Suboperations(remaining, self._completed, len(self._failed), self._warnings)
        identifier = b"" if status in (PENDING, SUCCESS) else self._failed_uids()
        encoded = encode_retrieve_response(
            (self.field, self.sop_class_uid, self.message_id),
            status,
            counts,
            error_comment(reason),
            has_data_set=bool(identifier),
        )
        self.requester.respond(cast("int", self._context.context_id), encoded, identifier)

    def _failed_uids(self) -> bytes:
        """Return an identifier with FailedSOPInstanceUIDList; empty where none failed."""
        if not self._failed:
            return b""
        value = "\\".join(self._failed).encode()
        value += b"\0" * (len(value) % 2)
        order = ">" if self._syntax == ExplicitVRBigEndian else "<"
        tag = struct.pack(f"{order}HH", *_FAILED_UIDS)
        if self._syntax.is_implicit_VR:
            return tag + struct.pack(f"{order}L", len(value)) + value
        if len(value) <= _LONGEST_UI:
            return tag + b"UI" + struct.pack(f"{order}H", len(value)) + value
        # PS3.5 Section 6.2.2: a value that is too long for its VR is UN.
        return tag + b"UN\0\0" + struct.pack(f"{order}L", len(value)) + value
