"""The modality code of a series, and the modality codes of a study (Modality, (0008,0060))."""

from index.imagingstudy.context import BuildContext
from index.imagingstudy.terminology.modalities import MODALITIES, OTHER, RETIRED
from index.imagingstudy.values import code, first
from index.records import Series

_DISPLAYS = MODALITIES | RETIRED


def modality(context: BuildContext, series: Series) -> dict[str, str]:
    """Return the Coding of a series' modality: OT where it is missing, no system where it is unknown."""
    subject = f"series {series.uid}"
    value = modality_code(series)
    if not value:
        context.issues.add(subject, "Modality is missing or no code, written as OT")
        value = OTHER
    display = _DISPLAYS.get(value)
    if display:
        return {"system": context.dialect.dicom, "code": value, "display": display}
    context.issues.add(subject, "Modality is no Defined Term, written without a system")
    return {"code": value}


def modalities(context: BuildContext) -> list[dict[str, str]]:
    """Return the distinct modalities of the series that this version allows for a study, in order of code."""
    codes = {modality_code(series) or OTHER for series in context.study.series}
    return [
        {"system": context.dialect.dicom, "code": value, "display": _DISPLAYS[value]}
        for value in sorted(codes & context.dialect.modalities)
    ]


def modality_code(series: Series) -> str:
    """Return Modality in the case of its Defined Term. Empty: it is missing or not a FHIR code."""
    value = code(first(series.attributes, "Modality"))
    return value.upper() if value.upper() in _DISPLAYS else value
