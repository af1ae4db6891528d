"""What is said at the level of the study, from instances or else from the order."""

from typing import Any

from index.imagingstudy.codes import distinct, text_concept
from index.imagingstudy.context import Build
from index.imagingstudy.elements.identifiers import identifier
from index.imagingstudy.elements.people import practitioners
from index.imagingstudy.values import first, items
from index.records import Attributes


def requests(build: Build) -> list[Attributes]:
    """Return the items of RequestAttributesSequence (0040,0275) of all series."""
    return [
        item
        for series in build.study.series
        for item in items(series.attributes, "RequestAttributesSequence")
    ]


def sources(build: Build) -> list[Attributes]:
    """Where study attributes are looked for, in order: the instances, their requests, the orders."""
    return [build.study.attributes, *requests(build), *(order.attributes for order in build.study.orders)]


def description(build: Build) -> str:
    """StudyDescription, else the description of the requested procedure, of instances or of the order."""
    found = build.text(build.study.attributes, "StudyDescription", build.subject)
    others = (first(source, "RequestedProcedureDescription") for source in sources(build))
    return found or next((text for text in others if text), "")


def study_id(build: Build) -> dict[str, Any]:
    """StudyID as an Identifier. Empty: none."""
    value = build.text(build.study.attributes, "StudyID", build.subject)
    return identifier(value, build.rules.study_id_system) if value else {}


def referrer(build: Build) -> dict[str, str]:
    """ReferringPhysicianName and its identification, of instances or else of the order. Empty: none."""
    for source in (build.study.attributes, *(order.attributes for order in build.study.orders)):
        found = practitioners(
            build, source, "ReferringPhysicianName", "ReferringPhysicianIdentificationSequence", most=1
        )
        if found:
            return found[0]
    return {}


def interpreters(build: Build, most: int | None = None) -> list[dict[str, str]]:
    """NameOfPhysiciansReadingStudy and their identification, `most` of them at most."""
    return practitioners(
        build,
        build.study.attributes,
        "NameOfPhysiciansReadingStudy",
        "PhysiciansReadingStudyIdentificationSequence",
        most,
    )


def performed_codes(build: Build) -> list[dict[str, Any]]:
    """ProcedureCodeSequence: what was performed, as concepts."""
    return distinct(build.concepts(items(build.study.attributes, "ProcedureCodeSequence")))


def procedure_codes(build: Build) -> list[dict[str, Any]]:
    """ProcedureCodeSequence and RequestedProcedureCodeSequence, of instances and else of the order."""
    own = build.study.attributes
    found = items(own, "ProcedureCodeSequence") + items(own, "RequestedProcedureCodeSequence")
    for source in sources(build)[1:]:
        found = found or items(source, "RequestedProcedureCodeSequence")
    return distinct(build.concepts(found))


def reasons(build: Build) -> list[dict[str, Any]]:
    """Return the reasons for the requested procedure, coded and written, of the first that has any."""
    for source in sources(build):
        found = reasons_of(build, source)
        if found:
            return found
    return []


def reasons_of(build: Build, source: Attributes) -> list[dict[str, Any]]:
    """Return the coded reasons and the written one of a set of attributes."""
    coded = build.concepts(items(source, "ReasonForRequestedProcedureCodeSequence"))
    written = first(source, "ReasonForTheRequestedProcedure")
    known = {found.get("text", "").casefold() for found in coded}
    return distinct([*coded, text_concept("" if written.casefold() in known else written)])
