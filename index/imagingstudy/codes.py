"""Coded values: DICOM code sequences (PS3.3 Section 8) to FHIR Coding and CodeableConcept."""

from typing import Any

from index.imagingstudy.rules import Rules
from index.imagingstudy.terminology.snomed import SCHEMES as SNOMED_SCHEMES
from index.imagingstudy.terminology.snomed import concept_id
from index.imagingstudy.terminology.systems import SNOMED, Dialect
from index.imagingstudy.values import clean, code, first
from index.records import Attributes

SCHEMES: dict[str, str] = {
    "LN": "http://loinc.org",
    "RADLEX": "http://www.radlex.org",
    "UCUM": "http://unitsofmeasure.org",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "I10P": "http://hl7.org/fhir/sid/icd-10",
    "I9": "http://hl7.org/fhir/sid/icd-9",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "C4": "http://www.ama-assn.org/go/cpt",
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
"""FHIR system by CodingSchemeDesignator (PS3.16 Section 8); DCM differs by version and stands in Dialect.

SNOMED's depend on the code: http://snomed.info/sct does not allow SNOMED-RT style ones.
"""

_VALUE_KEYWORDS = ("CodeValue", "LongCodeValue", "URNCodeValue")


def system_of(scheme: str, rules: Rules, dialect: Dialect) -> str:
    """Return the FHIR system of a coding scheme; the configuration first. Empty: not known, or SNOMED."""
    if scheme in rules.coding_systems:
        return rules.coding_systems[scheme]
    return dialect.dicom if scheme == "DCM" else SCHEMES.get(scheme, "")


def coding(item: Attributes, rules: Rules, dialect: Dialect) -> dict[str, str]:
    """Return a Coding of a code sequence item, without a system where its scheme has none. Empty: none."""
    made: dict[str, str] = {}
    value = next((found for found in (code(first(item, word)) for word in _VALUE_KEYWORDS) if found), "")
    scheme, version = first(item, "CodingSchemeDesignator"), first(item, "CodingSchemeVersion")
    system = system_of(scheme, rules, dialect)
    if not system and scheme in SNOMED_SCHEMES and (concept := concept_id(value, scheme)):
        if concept != value:
            version = ""  # of SNOMED-RT
        system, value = SNOMED, concept
    if value and system:
        made["system"] = system
        if version:
            made["version"] = version
    if value:
        made["code"] = value
    display = first(item, "CodeMeaning")
    if display:
        made["display"] = display
    return made


def concept(item: Attributes, rules: Rules, dialect: Dialect) -> dict[str, Any]:
    """Return a CodeableConcept of a code sequence item: the Coding, its meaning as text. Empty: none."""
    made = coding(item, rules, dialect)
    if "code" not in made:
        return text_concept(made.get("display", ""))
    return {"coding": [made], "text": made["display"]} if "display" in made else {"coding": [made]}


def text_concept(text: str) -> dict[str, Any]:
    """Return a CodeableConcept that is text alone. Empty: no text."""
    text = clean(text)
    return {"text": text} if text else {}


def distinct(concepts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the concepts that say something, each code (or text alone) once, in the order given."""
    seen: dict[tuple[str, str, str], dict[str, Any]] = {}
    for made in concepts:
        if made:
            seen.setdefault(key(made), made)
    return list(seen.values())


def key(made: dict[str, Any]) -> tuple[str, str, str]:
    """Return what makes a concept the same as another: system and code, or else the text."""
    if "coding" not in made:
        return ("", "", made["text"])
    found = made["coding"][0]
    return (found.get("system", ""), found["code"], "" if "system" in found else found.get("display", ""))
