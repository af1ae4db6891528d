"""Orders that an operator enters: the same rules on the command line and on the page."""

from collections.abc import Mapping
from datetime import datetime

from index.dicom.uids import is_uid
from index.errors import IndexFault
from index.orders.records import NewOrder, Source

# SH, CS and AE have at most 16 characters (PS3.5 Table 6.2-1).
SHORT = 16
SEXES = ("M", "F", "O")
"""PatientSex (PS3.3 C.7.1.1)."""


class BadOrder(IndexFault):
    """A field of an order has a value that is not allowed. `field` names it."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


def date_of(text: str) -> str:
    """Return a date of 20260102 or 2026-01-02 as DA. Raises ValueError."""
    return _moment(text, ("%Y%m%d", "%Y-%m-%d"), "%Y%m%d", "a date like 20260102 or 2026-01-02")


def time_of(text: str) -> str:
    """Return a time of 1015, 101500, 10:15 or 10:15:00 as TM. Raises ValueError."""
    forms = ("%H%M", "%H%M%S", "%H:%M", "%H:%M:%S")
    return _moment(text, forms, "%H%M%S", "a time like 1015, 10:15 or 10:15:00")


def _moment(text: str, forms: tuple[str, ...], form: str, allowed: str) -> str:
    for allowed_form in forms:
        try:
            return datetime.strptime(text, allowed_form).strftime(form)  # noqa: DTZ007  the scanner's local time
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not {allowed}")


def uid_of(text: str) -> str:
    """Check a UID. Raises ValueError."""
    if not is_uid(text):
        raise ValueError(f"{text!r} is not 1 to 64 characters of [0-9.]")
    return text


def short_of(text: str) -> str:
    """Check a value of VR SH, CS or AE (PS3.5 Table 6.2-1). Raises ValueError."""
    if not 1 <= len(text.strip()) <= SHORT or "\\" in text:
        raise ValueError(f"{text!r} is not 1 to 16 characters without a backslash")
    return text.strip()


def _sex(text: str) -> str:
    if text not in SEXES:
        raise ValueError(f"{text!r}: allowed are {', '.join(SEXES)}")
    return text


_CHECKS = {
    "accession": short_of,
    "procedure_id": short_of,
    "modality": short_of,
    "station": short_of,
    "step_id": short_of,
    "birth_date": date_of,
    "date": date_of,
    "time": time_of,
    "study_uid": uid_of,
    "sex": _sex,
}
REQUIRED = ("patient_id", "patient_name")


def order_by_hand(fields: Mapping[str, str | None]) -> NewOrder:
    """Return the order of one step that an operator has entered; empty fields are none. Raises BadOrder."""
    given = {name: text.strip() for name, text in fields.items() if text and text.strip()}
    for name in REQUIRED:
        if name not in given:
            raise BadOrder(name, "is missing")
    for name, check in _CHECKS.items():
        if name in given:
            try:
                given[name] = check(given[name])
            except ValueError as error:
                raise BadOrder(name, str(error)) from None
    now = datetime.now().astimezone()
    get = given.get
    accession, procedure = get("accession"), get("procedure")
    patient = {
        "PatientID": get("patient_id"),
        "PatientName": get("patient_name"),
        "PatientBirthDate": get("birth_date"),
        "PatientSex": get("sex", ""),
        "IssuerOfPatientID": get("issuer"),
    }
    attributes = {
        "AccessionNumber": accession,
        "RequestedProcedureID": get("procedure_id") or accession,
        "RequestedProcedureDescription": procedure,
        "ReferringPhysicianName": get("referrer"),
        "ReasonForTheRequestedProcedure": get("reason"),
        "StudyInstanceUID": get("study_uid"),
    }
    step = {
        "ScheduledProcedureStepID": get("step_id"),
        "ScheduledProcedureStepDescription": procedure,
        "Modality": get("modality"),
        "ScheduledStationAETitle": get("station"),
        "ScheduledProcedureStepStartDate": get("date") or now.strftime("%Y%m%d"),
        "ScheduledProcedureStepStartTime": get("time") or now.strftime("%H%M%S"),
    }
    identity = accession or get("procedure_id") or get("study_uid") or now.isoformat()
    return NewOrder(Source.CLI, "", identity, patient, attributes, [step], charset="ISO_IR 192")
