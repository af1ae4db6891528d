"""Procedures that were performed: of procedure steps (MPPS), or else of the instances' codes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from index.imagingstudy.codes import concept_key, distinct, text_concept
from index.imagingstudy.context import BuildContext, resource
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

_STATUS_WITHOUT_STEP = ("completed", "unknown")
"""Without a step: instances are there, so that in DSTU2, which has no unknown, it is completed."""


def procedures(context: BuildContext, limit: int | None = None) -> list[dict[str, str]]:
    """Return references to a Procedure for each step, and for each code that no step carries.

    A procedure that was only requested is not among them. Procedures beyond `limit` are left out, which is
    an issue.
    """
    dstu2 = context.version == "dstu2"
    builders: list[Callable[[], dict[str, str]]] = []
    carried = set()
    for step in context.study.steps:
        codes = distinct(context.concepts(items(step.attributes, "ProcedureCodeSequence")))
        text = first(step.attributes, "PerformedProcedureStepDescription")
        concept = codes[0] if codes else text_concept(text)
        if concept or not dstu2:
            carried |= {concept_key(found) for found in codes[:1]}
            builders.append(partial(_from_step, context, step, concept))
        else:
            context.issues.add(
                f"step {step.uid}", "has no code and no description, which DSTU2 wants, left out"
            )
    codes = [found for found in performed_codes(context) if concept_key(found) not in carried]
    builders += [partial(_from_code, context, found) for found in codes]
    if limit is not None and len(builders) > limit:
        context.issues.add(context.subject, "more procedures than this version refers to, left out")
    return [procedure() for procedure in builders[:limit]]


def _from_step(context: BuildContext, step: ProcedureStep, concept: dict[str, Any]) -> dict[str, str]:
    subject = f"step {step.uid}"
    word = "PerformedProcedureStep"
    period = {
        "start": context.moment(step.attributes, f"{word}StartDate", f"{word}StartTime", subject),
        "end": context.moment(step.attributes, f"{word}EndDate", f"{word}EndTime", subject),
    }
    period = {name: moment for name, moment in period.items() if moment}
    if "start" in period and "end" in period and period["end"] < period["start"]:
        context.issues.add(subject, "ends before it starts, the end is left out")
        del period["end"]
    states = STEP_STATUS.get(step.state, _STATUS_WITHOUT_STEP)
    when = "occurrencePeriod" if context.version == "r5" else "performedPeriod"
    return _procedure(
        context,
        hashed_id("step", step.uid),
        states,
        concept,
        {when: period, "performer": _performers(context, step)},
    )


def _performers(context: BuildContext, step: ProcedureStep) -> list[dict[str, Any]]:
    """Return the performing physicians and operators of PerformedSeriesSequence."""
    actors: list[dict[str, str]] = []
    for series in items(step.attributes, "PerformedSeriesSequence"):
        for names in ("PerformingPhysicianName", "OperatorsName"):
            found = practitioners(context, series, names, "")
            actors += [actor for actor in found if actor not in actors]
    return [{"actor": actor} for actor in actors]


def _from_code(context: BuildContext, concept: dict[str, Any]) -> dict[str, str]:
    identity = hashed_id("Procedure", context.study.uid, concept.get("coding", concept.get("text")))
    when = "occurrenceDateTime" if context.version == "r5" else "performedDateTime"
    return _procedure(context, identity, _STATUS_WITHOUT_STEP, concept, {when: context.started})


def _procedure(
    context: BuildContext,
    identity: str,
    states: tuple[str, str],
    concept: dict[str, Any],
    rest: dict[str, Any],
) -> dict[str, str]:
    if context.version == "dstu2":
        requests = orders(context)
        procedure = resource(
            "Procedure",
            identity,
            subject=context.patient,
            status=states[0],
            code=concept,
            **rest,
            request=requests[0] if requests else None,
        )
    else:
        procedure = resource(
            "Procedure",
            identity,
            basedOn=orders(context),
            status=states[1],
            code=concept,
            subject=context.patient,
            **rest,
        )
    return context.refer(procedure, concept.get("text", ""))
