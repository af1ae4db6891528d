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
"""FHIR system by CodingSchemeDesignator (PS3.16 Section 8); DCM differs by version: see Dialect.

SNOMED's depend on the code: http://snomed.info/sct does not allow SNOMED-RT style ones.
"""

_VALUE_KEYWORDS = ("CodeValue", "LongCodeValue", "URNCodeValue")


def system_of(scheme: str, rules: Rules, dialect: Dialect) -> str:
    """Return the FHIR system of a coding scheme, as configured or built in. Empty: not known, or SNOMED."""
    if scheme in rules.coding_systems:
        return rules.coding_systems[scheme]
    return dialect.dicom if scheme == "DCM" else SCHEMES.get(scheme, "")


def coding(item: Attributes, rules: Rules, dialect: Dialect) -> dict[str, str]:
    """Return a Coding of a code sequence item, without a system where its scheme has none. Empty: none."""
    result: dict[str, str] = {}
    value = next((found for found in (code(first(item, word)) for word in _VALUE_KEYWORDS) if found), "")
    scheme, version = first(item, "CodingSchemeDesignator"), first(item, "CodingSchemeVersion")
    system = system_of(scheme, rules, dialect)
    if not system and scheme in SNOMED_SCHEMES and (concept := concept_id(value, scheme)):
        if concept != value:
            version = ""  # of SNOMED-RT
        system, value = SNOMED, concept
    if value and system:
        result["system"] = system
        if version:
            result["version"] = version
    if value:
        result["code"] = value
    display = first(item, "CodeMeaning")
    if display:
        result["display"] = display
    return result


def concept(item: Attributes, rules: Rules, dialect: Dialect) -> dict[str, Any]:
    """Return a CodeableConcept of a code sequence item: the Coding, its meaning as text. Empty: none."""
    code = coding(item, rules, dialect)
    if "code" not in code:
        return text_concept(code.get("display", ""))
    return {"coding": [code], "text": code["display"]} if "display" in code else {"coding": [code]}


def text_concept(text: str) -> dict[str, Any]:
    """Return a CodeableConcept with a text alone. Empty: no text."""
    text = clean(text)
    return {"text": text} if text else {}


def distinct(concepts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the concepts that are not empty, each code (or text alone) once, in the order given."""
    by_key: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in concepts:
        if each:
            by_key.setdefault(concept_key(each), each)
    return list(by_key.values())


def concept_key(concept: dict[str, Any]) -> tuple[str, str, str]:
    """Return what equal concepts have in common: system and code, or else the text."""
    if "coding" not in concept:
        return ("", "", concept["text"])
    code = concept["coding"][0]
    return (code.get("system", ""), code["code"], "" if "system" in code else code.get("display", ""))
