"""The elements of the study itself, from instances or else from the orders."""

from typing import Any

from index.imagingstudy.codes import distinct, text_concept
from index.imagingstudy.context import BuildContext
from index.imagingstudy.elements.identifiers import identifier
from index.imagingstudy.elements.people import practitioners
from index.imagingstudy.values import first, items
from index.records import Attributes


def requests(context: BuildContext) -> list[Attributes]:
    """Return the items of RequestAttributesSequence (0040,0275) of all series."""
    return [
        item
        for series in context.study.series
        for item in items(series.attributes, "RequestAttributesSequence")
    ]


def sources(context: BuildContext) -> list[Attributes]:
    """Return where study attributes are looked for, in order: instances, their requests, orders."""
    return [
        context.study.attributes,
        *requests(context),
        *(order.attributes for order in context.study.orders),
    ]


def description(context: BuildContext) -> str:
    """Return StudyDescription, else RequestedProcedureDescription, of instances or else of the order."""
    found = context.text(context.study.attributes, "StudyDescription", context.subject)
    others = (first(source, "RequestedProcedureDescription") for source in sources(context))
    return found or next((text for text in others if text), "")


def study_id(context: BuildContext) -> dict[str, Any]:
    """Return StudyID as an Identifier. Empty: none."""
    value = context.text(context.study.attributes, "StudyID", context.subject)
    return identifier(value, context.rules.study_id_system) if value else {}


def referrer(context: BuildContext) -> dict[str, str]:
    """Return the referring physician, of instances or else of the order. Empty: none."""
    for source in (context.study.attributes, *(order.attributes for order in context.study.orders)):
        found = practitioners(
            context, source, "ReferringPhysicianName", "ReferringPhysicianIdentificationSequence", limit=1
        )
        if found:
            return found[0]
    return {}


def interpreters(context: BuildContext, limit: int | None = None) -> list[dict[str, str]]:
    """Return the physicians reading the study, at most `limit` of them."""
    return practitioners(
        context,
        context.study.attributes,
        "NameOfPhysiciansReadingStudy",
        "PhysiciansReadingStudyIdentificationSequence",
        limit,
    )


def performed_codes(context: BuildContext) -> list[dict[str, Any]]:
    """Return the performed procedures as concepts (ProcedureCodeSequence)."""
    return distinct(context.concepts(items(context.study.attributes, "ProcedureCodeSequence")))


def procedure_codes(context: BuildContext) -> list[dict[str, Any]]:
    """Return ProcedureCodeSequence and RequestedProcedureCodeSequence, of instances or else of the order."""
    own = context.study.attributes
    found = items(own, "ProcedureCodeSequence") + items(own, "RequestedProcedureCodeSequence")
    for source in sources(context)[1:]:
        found = found or items(source, "RequestedProcedureCodeSequence")
    return distinct(context.concepts(found))


def reasons(context: BuildContext) -> list[dict[str, Any]]:
    """Return the reasons for the requested procedure, coded and as text, of the first source that has any."""
    for source in sources(context):
        found = reasons_of(context, source)
        if found:
            return found
    return []


def reasons_of(context: BuildContext, source: Attributes) -> list[dict[str, Any]]:
    """Return the coded reasons of a set of attributes, and its text where no code says the same."""
    coded = context.concepts(items(source, "ReasonForRequestedProcedureCodeSequence"))
    written = first(source, "ReasonForTheRequestedProcedure")
    known = {found.get("text", "").casefold() for found in coded}
    return distinct([*coded, text_concept("" if written.casefold() in known else written)])
