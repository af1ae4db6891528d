"""The statuses of each service, and when each is answered. A test holds them against the services' code."""

from collections.abc import Mapping

from scp.wire import status as s
from scp.wire.status import C_STORE, PROCEDURE_STEP, STORAGE_COMMITMENT, Statuses

# When a failure of a table in scp/wire/status.py happens, by the name of its type.
_FAILURES = {
    "BadStepValue": "an attribute has a value that is not allowed, or not in this state",
    "Disagreement": "command and data set disagree on SOP Class or SOP Instance UID",
    "DuplicateStep": "there is already a step with this UID",
    "Exception": "any other failure",
    "IndexFault": "the request cannot be kept",
    "InvalidUID": "a UID is missing or not valid",
    "MissingAttribute": "a required attribute is missing",
    "MissingValue": "a required attribute has no value",
    "NoSuchStep": "there is no such step",
    "NotKept": "there is no room, or the index cannot be written",
    "Unreadable": "the data set cannot be read as far as its UIDs",
}
_OTHER = {"C-STORE": "the instance cannot be kept: no space, I/O error, too large, too many in the journal"}

Meanings = Mapping[int, str]


def _of(statuses: Statuses, operation: str = "") -> dict[int, str]:
    found = {s.SUCCESS: "done"}
    for kind, code in statuses.items():
        when = _OTHER.get(operation) if kind is Exception else None
        found[code] = when or _FAILURES[kind.__name__]
    return found


STATUSES: Mapping[str, Meanings] = {
    "C-ECHO": {s.SUCCESS: "always"},
    "C-STORE": _of(C_STORE, "C-STORE"),
    "C-FIND": {
        s.SUCCESS: "all answers have been sent",
        s.PENDING: "an answer",
        s.PENDING_WITHOUT_SOME_KEYS: "an answer; some keys are not supported: they are not matched",
        s.CANCELLED: "cancelled by C-CANCEL",
        s.OUT_OF_RESOURCES: "more answers than the limit, or the index cannot be read",
        s.IDENTIFIER_DOES_NOT_MATCH: "the level is missing or wrong, a unique key of a level above is"
        " missing, a value is not allowed",
        s.UNABLE_TO_PROCESS: "the identifier cannot be read",
    },
    "C-MOVE, C-GET": {
        s.SUCCESS: "all instances were sent, or none matches",
        s.PENDING: "after each instance, with the counts",
        s.CANCELLED: "cancelled by C-CANCEL",
        s.SUBOPERATIONS_FAILED: "some instances could not be sent, or were taken with a warning",
        s.CANNOT_COUNT: "the matches cannot be counted: the index cannot be read now",
        s.CANNOT_PERFORM_SUBOPERATIONS: "no instance could be sent",
        s.MOVE_DESTINATION_UNKNOWN: "C-MOVE: the destination is no peer with host and port",
        s.IDENTIFIER_DOES_NOT_MATCH: "the level, its unique key or another key is missing or not allowed",
        s.UNABLE_TO_PROCESS: "the identifier cannot be read",
        s.SOP_CLASS_NOT_SUPPORTED: "the operation is not one of the SOP Class",
    },
    "N-CREATE, N-SET (MPPS)": {
        **_of(PROCEDURE_STEP),
        s.PROCESSING_FAILURE: "any other failure; with Error ID A710: the step has ended",
    },
    "N-GET (MPPS)": {
        s.SUCCESS: "done",
        s.OPTIONAL_ATTRIBUTES_NOT_SUPPORTED: "the step has no value of some attributes that are asked for",
        s.ATTRIBUTE_LIST_ERROR: "some attributes that are asked for are not known",
        s.NO_SUCH_SOP_INSTANCE: "there is no such step",
        s.PROCESSING_FAILURE: "any other failure",
    },
    "N-ACTION (storage commitment)": {
        **_of(STORAGE_COMMITMENT),
        s.NO_SUCH_SOP_INSTANCE: "the instance is not the well-known one",
        s.NO_SUCH_ACTION_TYPE: "the action type is not 1",
        s.INVALID_ARGUMENT_VALUE: "the action information cannot be read",
        s.MISSING_ATTRIBUTE: "the Transaction UID or a reference is missing",
    },
    "any request": {
        s.INVALID_SOP_INSTANCE: "DIMSE-N: the SOP Instance UID is missing",
        s.NO_SUCH_SOP_CLASS: "DIMSE-N: the SOP Class is missing, or is not that of the presentation context",
        s.SOP_CLASS_NOT_SUPPORTED: "DIMSE-C: the same",
        s.UNRECOGNIZED_OPERATION: "the SOP Class does not have this operation",
        s.MISTYPED_ARGUMENT: "a parameter is missing",
        s.RESOURCE_LIMITATION: "the data set of a message other than C-STORE is too long",
        s.CANNOT_UNDERSTAND: "C-STORE without a data set",
    },
}
"""By operation: each status, and when it is answered."""
