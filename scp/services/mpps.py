"""The Modality Performed Procedure Step SOP Classes as SCP (PS3.4 Annex F): N-CREATE, N-SET and N-GET."""

from collections.abc import Iterable
from time import perf_counter
from typing import cast
from uuid import uuid4

from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_CREATE, N_GET, N_SET
from pynetdicom.events import Event

from index import Index, IndexFault, InvalidUID, StepEnded, StepResult
from scp.association.events import Handler, record_of
from scp.observing.association_record import AssociationRecord
from scp.observing.metrics import Metrics
from scp.wire.status import (
    ATTRIBUTE_LIST_ERROR,
    OPTIONAL_ATTRIBUTES_NOT_SUPPORTED,
    PROCEDURE_STEP,
    SUCCESS,
    error_comment,
    status_of,
)

MPPS = "1.2.840.10008.3.1.2.3.3"
MPPS_RETRIEVE = "1.2.840.10008.3.1.2.3.4"

# The attributes that every N-GET can be answered with, empty where the step has none: return types 1 and 2 of
# PS3.4 Table F.8.2-1.
RETURNED = (
    "ScheduledStepAttributesSequence",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedStationName",
    "PerformedLocation",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepStatus",
    "PerformedProcedureStepDescription",
    "PerformedProcedureTypeDescription",
    "ProcedureCodeSequence",
    "PerformedProcedureStepEndDate",
    "PerformedProcedureStepEndTime",
    "PerformedSeriesSequence",
    "Modality",
    "StudyID",
    "PerformedProtocolCodeSequence",
)
_CHARSET = BaseTag(0x00080005)

# "Performed Procedure Step Object may no longer be updated" (PS3.4 Table F.7.2-2).
NO_LONGER_UPDATED = 0xA710

Response = tuple[Dataset, Dataset | None]


class StepService:
    """Serves N-CREATE, N-SET and N-GET of performed procedure steps."""

    SERVICES = {MPPS: "mpps", MPPS_RETRIEVE: "mpps"}  # noqa: RUF012  a constant

    def __init__(self, index: Index, metrics: Metrics) -> None:
        self._procedures = index.procedures
        self._metrics = metrics

    @property
    def handlers(self) -> list[Handler]:
        """The handlers that the listener binds."""
        return [
            (evt.EVT_N_CREATE, self._on_create),
            (evt.EVT_N_SET, self._on_set),
            (evt.EVT_N_GET, self._on_get),
        ]

    def _on_create(self, event: Event) -> Response:
        with_uid = cast("N_CREATE", event.request).AffectedSOPInstanceUID
        # PS3.7 Section 10.1.5.1.4: without a UID the SCP assigns one.
        uid = str(with_uid or f"2.25.{uuid4().int}")
        operation = _Operation(record_of(event), self._metrics, "created", uid)
        try:
            sender = operation.record.info.calling_aet
            status = operation.done(self._procedures.create(_valid(uid), sender, event.attribute_list))
        except Exception as error:  # noqa: BLE001  becomes a status
            return operation.failed(error), None
        given = Dataset()
        given.AffectedSOPInstanceUID = uid
        return status, None if with_uid else given

    def _on_set(self, event: Event) -> Response:
        uid = str(cast("N_SET", event.request).RequestedSOPInstanceUID or "")
        operation = _Operation(record_of(event), self._metrics, "updated", uid)
        try:
            return operation.done(self._procedures.update(uid, event.modification_list)), None
        except Exception as error:  # noqa: BLE001  becomes a status
            return operation.failed(error), None

    def _on_get(self, event: Event) -> Response:
        uid = str(cast("N_GET", event.request).RequestedSOPInstanceUID or "")
        operation = _Operation(record_of(event), self._metrics, "read", uid)
        try:
            wanted = [BaseTag(tag) for tag in event.attribute_identifiers]
            step = self._procedures.get(uid)
            code = _status_of_list(step, wanted)
            return operation.read(code), _requested(step, wanted)
        except Exception as error:  # noqa: BLE001  becomes a status
            return operation.failed(error), None


def _requested(step: Dataset, wanted: Iterable[BaseTag]) -> Dataset:
    """Return the attributes of a step that are asked for; all where none is named."""
    tags = set(wanted)
    if not tags:
        return step
    found = Dataset()
    for tag in tags | {_CHARSET}:  # texts cannot be read without their character set
        if tag in step:
            found[tag] = step[tag]
    for keyword in RETURNED:
        if tag_for_keyword(keyword) in tags and keyword not in found:
            setattr(found, keyword, [] if keyword.endswith("Sequence") else "")
    return found


def _status_of_list(step: Dataset, wanted: Iterable[BaseTag]) -> int:
    """Return the status of an Attribute Identifier List: a warning where a step has not all of it.

    An attribute of the standard that this step does not have is 0001 (PS3.4 Table F.8.2-2), one that is not
    recognized 0107 (PS3.7 Section 10.1.2.1.9).
    """
    known = {tag_for_keyword(keyword) for keyword in RETURNED} | {_CHARSET}
    missing = [tag for tag in wanted if tag not in step and tag not in known]
    if any(tag.group == 0 or not dictionary_has_tag(tag) for tag in missing):
        return ATTRIBUTE_LIST_ERROR
    return OPTIONAL_ATTRIBUTES_NOT_SUPPORTED if missing else SUCCESS


def _valid(uid: str) -> str:
    if not UID(uid).is_valid:
        raise InvalidUID(f"{uid!r} is not a UID")
    return uid


class _Operation:
    """One request and its log event, which has no patient data."""

    def __init__(self, record: AssociationRecord, metrics: Metrics, what: str, uid: str) -> None:
        self.record = record
        self._metrics = metrics
        self._started = perf_counter()
        self._event = {"operation": what, "step_uid": uid}
        record.count("steps")

    def done(self, performed: StepResult) -> Dataset:
        """Return success."""
        self.record.log.info(
            "procedure_step",
            status=f"{SUCCESS:04X}",
            state=str(performed.state),
            scheduled=performed.scheduled,
            instances=performed.instances,
            study_uids=performed.study_uids,
            seconds=self._seconds,
            **self._event,
        )
        return self._answered(SUCCESS)

    def read(self, code: int) -> Dataset:
        """Return the status of a step that has been read."""
        self.record.log.info("procedure_step", status=f"{code:04X}", seconds=self._seconds, **self._event)
        return self._answered(code)

    def failed(self, error: Exception) -> Dataset:
        """Return the status that says what went wrong."""
        code = status_of(error, PROCEDURE_STEP)
        self.record.log.warning(
            "procedure_step",
            status=f"{code:04X}",
            reason=str(error),
            seconds=self._seconds,
            # With its traceback, where it is a fault of our own.
            exc_info=None if isinstance(error, IndexFault) else error,
            **self._event,
        )
        status = self._answered(code)
        status.ErrorComment = error_comment(error)
        if isinstance(error, StepEnded):
            status.ErrorID = NO_LONGER_UPDATED
        return status

    def _answered(self, code: int) -> Dataset:
        self._metrics.operation_answered("mpps", f"{code:04X}")
        made = Dataset()
        made.Status = code
        return made

    @property
    def _seconds(self) -> float:
        return round(perf_counter() - self._started, 4)
