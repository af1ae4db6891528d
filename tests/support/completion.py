"""An index whose studies are said to be complete, and time that passes for it."""

from pathlib import Path
from typing import Any

from index import FhirSettings, Index, Observer, PublishSettings
from index.database.tables import CompletionRow
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep
from support.modality import begun, ended

STUDY = f"{ROOT}.1"
STEP = "1.2.826.0.1.55.9"
R4 = FhirSettings(versions=("r4",))


def opened(data: Path, counts: Observer | None = None, **publish: Any) -> Index:
    return Index(data, STORAGE, fhir=R4, publish=PublishSettings(**publish), observer=counts)


def put(index: Index, *numbers: int, study: int = 1) -> None:
    for number in numbers:
        keep(index, instance(study, 1, number))
    index.publish()


def step(index: Index, *numbers: int, uid: str = STEP, state: str = "COMPLETED") -> None:
    index.procedures.create(uid, "CT1", begun(study_uid=STUDY))
    if state:
        made = [f"{STUDY}.1.{number}" for number in numbers]
        index.procedures.update(uid, ended(state, f"{STUDY}.1", made))
    index.publish()


def told(index: Index, uid: str = STUDY) -> tuple[str, int, int] | None:
    found = index.completions.told([uid]).get(uid)
    return (found.reason, found.instances, found.later) if found else None


def entries(index: Index) -> list[tuple[str, str, str]]:
    return [(one.type, one.id, one.reason) for one in index.changes() if one.change == "complete"]


def pass_time(index: Index, seconds: float) -> float:
    """Let so many seconds pass for the studies that are not complete yet, and look for quiet ones."""
    earlier = CompletionRow.update(due=CompletionRow.due - int(seconds * 1000))
    with index._database.writing():
        index._database.execute(earlier.where(CompletionRow.told == 0))
    return index.completions.find_quiet()
