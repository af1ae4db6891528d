"""Patient and Practitioner."""

from collections.abc import Sequence
from typing import Any

from index.imagingstudy.codes import system_of
from index.imagingstudy.context import BuildContext, resource
from index.imagingstudy.elements.identifiers import identifier, issued, patient_issuer
from index.imagingstudy.elements.names import human_names, plain_text
from index.imagingstudy.rules import Resource
from index.imagingstudy.terminology.identifier_types import is_identifier_type
from index.imagingstudy.values import clean, fhir_id, first, hashed_id, items, texts
from index.records import Attributes, Patient

GENDERS = {"M": "male", "F": "female", "O": "other"}
"""AdministrativeGender by PatientSex (0010,0040)."""


DEVICES = {"RFID": "RFID", "BARCODE": "Barcode"}
"""Identifier.type as text by TypeOfPatientID (0010,0022): not a medical record number."""


def patient(context: BuildContext, of: Patient) -> Resource:
    """Return a Patient: identifiers with their issuers, names, gender and date of birth."""
    attributes = of.attributes
    subject = f"patient of {context.subject}"
    sex = first(attributes, "PatientSex")
    if sex and sex not in GENDERS:
        context.issues.add(subject, "PatientSex is not M, F or O, left out")
    names = human_names(_name(attributes.get("PatientName")), context.dialect)
    return resource(
        "Patient",
        fhir_id(of.id),
        identifier=_patient_identifiers(context, attributes),
        name=names,
        gender=GENDERS.get(sex),
        birthDate=context.date(attributes, "PatientBirthDate", subject),
    )


def _patient_identifiers(context: BuildContext, attributes: Attributes) -> list[dict[str, Any]]:
    """Return PatientID, then OtherPatientIDsSequence (PS3.3 C.7.1.1), each with its issuer and type."""
    rules = context.rules
    identifiers: list[dict[str, Any]] = []
    for source in (attributes, *items(attributes, "OtherPatientIDsSequence")):
        number = first(source, "PatientID")
        own = source is attributes
        device = first(source, "TypeOfPatientID").upper() in DEVICES
        # The configured system is that of PatientID, not of other numbers or of a tag's.
        configured = rules.patient_system if own and not device else None
        kind = _identifier_type(context, source, "MR" if own else "")
        found = issued(number, patient_issuer(source), configured, rules, kind=kind)
        if number and not any(found.items() <= known.items() for known in identifiers):
            identifiers.append(found)
    return identifiers


def _identifier_type(context: BuildContext, source: Attributes, default: str) -> dict[str, Any]:
    """Return the type of a patient's identifier by (0040,0035) and (0010,0022). Empty: it is not known."""
    qualifiers = next(iter(items(source, "IssuerOfPatientIDQualifiersSequence")), {})
    code = first(qualifiers, "IdentifierTypeCode")
    device = DEVICES.get(first(source, "TypeOfPatientID").upper())
    if code and not is_identifier_type(code.upper()):
        return {"text": code}
    code = code.upper() or ("" if device else default)
    if code:
        return {"coding": [{"system": context.dialect.identifier_type, "code": code}]}
    return {"text": device} if device else {}


def _name(value: Any) -> str:
    """Return a PN value as text; the first where there are several."""
    if isinstance(value, (list, tuple)):
        value = next(iter(value), "")
    return value if isinstance(value, str) else ""


def practitioners(
    context: BuildContext, attributes: Attributes, names: str, identification: str, limit: int | None = None
) -> list[dict[str, str]]:
    """Return references to the people of a name attribute and its identification sequence.

    The nth item identifies the nth name (PS3.3 C.7.2.1); where there are not as many items as names, the
    items are left out. People beyond `limit` are left out. Both are issues.
    """
    people = texts(attributes, names)
    numbers: Sequence[Attributes] = items(attributes, identification)
    if people and numbers and len(people) != len(numbers):
        context.issues.add(context.subject, f"{identification} has not one item for each name, left out")
        numbers = []
    count = max(len(people), len(numbers))
    pairs = zip(
        [*people, *[""] * (count - len(people))], [*numbers, *[{}] * (count - len(numbers))], strict=True
    )
    if limit is not None and count > limit:
        context.issues.add(context.subject, f"more of {names} than this version holds, left out")
    references = [practitioner(context, name, number) for name, number in [*pairs][:limit]]
    return [found for i, found in enumerate(references) if found and found not in references[:i]]


def practitioner(context: BuildContext, name: str, identification: Attributes) -> dict[str, str]:
    """Return a Reference to the Practitioner of this name and Person Identification item. Empty: none.

    The id is a function of name and codes, so that every study writes the same resource.
    """
    found = items(identification, "PersonIdentificationCodeSequence")
    codes = [(first(item, "CodingSchemeDesignator"), first(item, "CodeValue")) for item in found]
    codes = [(scheme, value) for scheme, value in codes if value]
    name = name or next((first(item, "CodeMeaning") for item in found if first(item, "CodeMeaning")), "")
    names = human_names(name, context.dialect)
    if not names and not codes:
        return {}
    person = resource(
        "Practitioner",
        hashed_id("Practitioner", name, codes),
        identifier=[_person_identifier(context, scheme, value) for scheme, value in codes],
        name=names if context.dialect.practitioner_names or not names else names[0],
    )
    return context.refer(person, clean(plain_text(name)))


def _person_identifier(context: BuildContext, scheme: str, value: str) -> dict[str, Any]:
    system = system_of(scheme, context.rules, context.dialect)
    number = identifier(value, system or context.rules.practitioner_system)
    return number if system or not scheme else number | {"assigner": {"display": scheme}}
