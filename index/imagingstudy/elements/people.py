"""Patient and Practitioner."""

from collections.abc import Sequence
from typing import Any

from index.imagingstudy.codes import system_of
from index.imagingstudy.context import Build, resource
from index.imagingstudy.elements.identifiers import identifier, issued, patient_issuer
from index.imagingstudy.elements.names import human_names, plain_text
from index.imagingstudy.rules import Resource
from index.imagingstudy.terminology.identifier_types import is_identifier_type
from index.imagingstudy.values import clean, fhir_id, first, hashed_id, items, texts
from index.records import Attributes, Patient

GENDERS = {"M": "male", "F": "female", "O": "other"}
"""AdministrativeGender by PatientSex (0010,0040)."""


DEVICES = {"RFID": "RFID", "BARCODE": "Barcode"}
"""Identifier.type as text by TypeOfPatientID (0010,0022): what a device reads is no medical record number."""


def patient(build: Build, of: Patient) -> Resource:
    """Return a Patient: identifiers with their issuers, names, gender and date of birth."""
    attributes = of.attributes
    subject = f"patient of {build.subject}"
    sex = first(attributes, "PatientSex")
    if sex and sex not in GENDERS:
        build.doubts.add(subject, "PatientSex is none of M, F, O, left out")
    names = human_names(_name(attributes.get("PatientName")), build.dialect)
    return resource(
        "Patient",
        fhir_id(of.id),
        identifier=_patient_identifiers(build, attributes),
        name=names,
        gender=GENDERS.get(sex),
        birthDate=build.date(attributes, "PatientBirthDate", subject),
    )


def _patient_identifiers(build: Build, attributes: Attributes) -> list[dict[str, Any]]:
    """PatientID, then OtherPatientIDsSequence (PS3.3 C.7.1.1), each by its issuer and of its own type."""
    rules = build.rules
    made: list[dict[str, Any]] = []
    for source in (attributes, *items(attributes, "OtherPatientIDsSequence")):
        number = first(source, "PatientID")
        own = source is attributes
        device = first(source, "TypeOfPatientID").upper() in DEVICES
        # Who issued another number, or what a tag holds, is not known where it is not said.
        configured = rules.patient_system if own and not device else None
        kind = _identifier_type(build, source, "MR" if own else "")
        found = issued(number, patient_issuer(source), configured, rules, kind=kind)
        if number and not any(_is_told(found, one) for one in made):
            made.append(found)
    return made


def _identifier_type(build: Build, source: Attributes, otherwise: str) -> dict[str, Any]:
    """Return the type of a patient's identifier by (0040,0035) and (0010,0022). Empty: it is not known."""
    qualifiers = next(iter(items(source, "IssuerOfPatientIDQualifiersSequence")), {})
    said = first(qualifiers, "IdentifierTypeCode")
    device = DEVICES.get(first(source, "TypeOfPatientID").upper())
    if said and not is_identifier_type(said.upper()):
        return {"text": said}
    code = said.upper() or ("" if device else otherwise)
    if code:
        return {"coding": [{"system": build.dialect.identifier_type, "code": code}]}
    return {"text": device} if device else {}


def _is_told(found: dict[str, Any], by: dict[str, Any]) -> bool:
    """Whether one identifier says nothing that another does not say."""
    return all(by.get(element) == value for element, value in found.items())


def _name(value: Any) -> str:
    """Return a PN value as text; the first where there are several."""
    if isinstance(value, (list, tuple)):
        value = next(iter(value), "")
    return value if isinstance(value, str) else ""


def practitioners(
    build: Build, attributes: Attributes, names: str, identification: str, most: int | None = None
) -> list[dict[str, str]]:
    """Return references to the people that a name attribute and its identification sequence tell of.

    The nth item identifies the nth name (PS3.3 C.7.2.1); where their numbers differ, the names stand alone.
    Those beyond `most` are left out, with a doubt.
    """
    people = texts(attributes, names)
    numbers: Sequence[Attributes] = items(attributes, identification)
    if people and numbers and len(people) != len(numbers):
        build.doubts.add(build.subject, f"{identification} has not one item for each name, left out")
        numbers = []
    count = max(len(people), len(numbers))
    pairs = zip(
        [*people, *[""] * (count - len(people))], [*numbers, *[{}] * (count - len(numbers))], strict=True
    )
    if most is not None and count > most:
        build.doubts.add(build.subject, f"more of {names} than this version holds, left out")
    made = [practitioner(build, name, number) for name, number in [*pairs][:most]]
    return [found for i, found in enumerate(made) if found and found not in made[:i]]


def practitioner(build: Build, name: str, identification: Attributes) -> dict[str, str]:
    """Return a Reference to the Practitioner of this name and Person Identification item. Empty: none.

    The id is a function of name and codes, so that the resource is the same whichever study writes it.
    """
    found = items(identification, "PersonIdentificationCodeSequence")
    codes = [(first(item, "CodingSchemeDesignator"), first(item, "CodeValue")) for item in found]
    codes = [(scheme, value) for scheme, value in codes if value]
    name = name or next((first(item, "CodeMeaning") for item in found if first(item, "CodeMeaning")), "")
    names = human_names(name, build.dialect)
    if not names and not codes:
        return {}
    made = resource(
        "Practitioner",
        hashed_id("Practitioner", name, codes),
        identifier=[_person_identifier(build, scheme, value) for scheme, value in codes],
        name=names if build.dialect.practitioner_names or not names else names[0],
    )
    return build.refer(made, clean(plain_text(name)))


def _person_identifier(build: Build, scheme: str, value: str) -> dict[str, Any]:
    system = system_of(scheme, build.rules, build.dialect)
    made = identifier(value, system or build.rules.practitioner_system)
    return made if system or not scheme else made | {"assigner": {"display": scheme}}
