"""Procedure: what was performed, from procedure steps (MPPS) or else from the instances' codes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from index.imagingstudy.codes import distinct, key, text_concept
from index.imagingstudy.context import Build, resource
from index.imagingstudy.elements.orders import orders
from index.imagingstudy.elements.people import practitioners
from index.imagingstudy.elements.study import performed_codes
from index.imagingstudy.values import first, hashed_id, items
from index.records import ProcedureStep

STEP_STATUS = {
    "IN PROGRESS": ("in-progress", "in-progress"),
    "COMPLETED": ("completed", "completed"),
    "DISCONTINUED": ("aborted", "stopped"),
}
"""By PerformedProcedureStepStatus (0040,0252): Procedure.status of DSTU2, of R4 and R5."""

_UNTOLD = ("completed", "unknown")
"""With no step to tell: instances are there, so DSTU2, which has no unknown, says completed."""


def procedures(build: Build, most: int | None = None) -> list[dict[str, str]]:
    """Return references to a Procedure for each step, and for each code that no step carries.

    What was only requested is none: of what has no step, DSTU2 can say nothing but that it is completed.
    Those beyond `most` are left out, with a doubt.
    """
    dstu2 = build.version == "dstu2"
    made: list[Callable[[], dict[str, str]]] = []
    carried = set()
    for step in build.study.steps:
        codes = distinct(build.concepts(items(step.attributes, "ProcedureCodeSequence")))
        text = first(step.attributes, "PerformedProcedureStepDescription")
        concept = codes[0] if codes else text_concept(text)
        if concept or not dstu2:
            carried |= {key(found) for found in codes[:1]}
            made.append(partial(_of_step, build, step, concept))
        else:
            build.doubts.add(
                f"step {step.uid}", "has no code and no description, which DSTU2 wants, left out"
            )
    codes = [found for found in performed_codes(build) if key(found) not in carried]
    made += [partial(_of_code, build, found) for found in codes]
    if most is not None and len(made) > most:
        build.doubts.add(build.subject, "more procedures than this version refers to, left out")
    return [make() for make in made[:most]]


def _of_step(build: Build, step: ProcedureStep, concept: dict[str, Any]) -> dict[str, str]:
    subject = f"step {step.uid}"
    word = "PerformedProcedureStep"
    period = {
        "start": build.moment(step.attributes, f"{word}StartDate", f"{word}StartTime", subject),
        "end": build.moment(step.attributes, f"{word}EndDate", f"{word}EndTime", subject),
    }
    period = {name: moment for name, moment in period.items() if moment}
    if "start" in period and "end" in period and period["end"] < period["start"]:
        build.doubts.add(subject, "ends before it starts, the end is left out")
        del period["end"]
    states = STEP_STATUS.get(step.state, _UNTOLD)
    when = "occurrencePeriod" if build.version == "r5" else "performedPeriod"
    return _procedure(
        build,
        hashed_id("step", step.uid),
        states,
        concept,
        {when: period, "performer": _performers(build, step)},
    )


def _performers(build: Build, step: ProcedureStep) -> list[dict[str, Any]]:
    """Procedure.performer: the performing physicians and operators of PerformedSeriesSequence."""
    actors: list[dict[str, str]] = []
    for series in items(step.attributes, "PerformedSeriesSequence"):
        for names in ("PerformingPhysicianName", "OperatorsName"):
            found = practitioners(build, series, names, "")
            actors += [actor for actor in found if actor not in actors]
    return [{"actor": actor} for actor in actors]


def _of_code(build: Build, concept: dict[str, Any]) -> dict[str, str]:
    identity = hashed_id("Procedure", build.study.uid, concept.get("coding", concept.get("text")))
    when = "occurrenceDateTime" if build.version == "r5" else "performedDateTime"
    return _procedure(build, identity, _UNTOLD, concept, {when: build.started})


def _procedure(
    build: Build, identity: str, states: tuple[str, str], concept: dict[str, Any], rest: dict[str, Any]
) -> dict[str, str]:
    if build.version == "dstu2":
        asked = orders(build)
        made = resource(
            "Procedure",
            identity,
            subject=build.patient,
            status=states[0],
            code=concept,
            **rest,
            request=asked[0] if asked else None,
        )
    else:
        made = resource(
            "Procedure",
            identity,
            basedOn=orders(build),
            status=states[1],
            code=concept,
            subject=build.patient,
            **rest,
        )
    return build.refer(made, concept.get("text", ""))
