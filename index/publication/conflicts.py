"""Data sets in conflict, and studies that have no others.

A data set is in conflict where another one has its SOP Instance UID: index/reception/indexing.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from peewee import JOIN

from index.database.connection import Database
from index.database.tables import Conflict, Instance, Series, Study
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault
from index.publication.study_rows import Summary, study_date
from index.records import Header
from index.storage.object_store import ObjectStore

# Objects that one message names; a study may have thousands.
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class ConflictingObject:
    """An object in `conflicts/`: its study, its path, and the study that has its UID."""

    study_uid: str
    sop_instance_uid: str
    path: str
    in_study: str

    def __str__(self) -> str:
        study = f"study {self.in_study}" if self.in_study else "no study any more"
        return f"{self.path} with SOP Instance UID {self.sop_instance_uid}, which {study} has"


@dataclass(frozen=True, slots=True)
class StudyInConflict(Summary):
    """A study whose data sets are all in conflict; its summary is that of the first of them."""

    conflicts: int


def conflicting_objects(database: Database, study_uid: str | None = None) -> list[ConflictingObject]:
    """Return the objects in conflict, of one study or of all, that differ from the indexed instance."""
    query = (
        Conflict.select(Conflict.study_uid, Conflict.uid, Conflict.path, Study.uid)
        .join(Instance, JOIN.LEFT_OUTER, on=(Instance.uid == Conflict.uid))
        .join(Series, JOIN.LEFT_OUTER)
        .join(Study, JOIN.LEFT_OUTER)
        .where(Instance.sha1.is_null() | (Instance.sha1 != Conflict.sha1))
        .order_by(Conflict.study_uid, Conflict.id)
    )
    if study_uid is not None:
        query = query.where(Conflict.study_uid == study_uid)
    return [
        ConflictingObject(study, uid, path, other or "") for study, uid, path, other in database.rows(query)
    ]


def studies_only_in_conflict(database: Database) -> list[list[ConflictingObject]]:
    """Return the objects of each study that has no others, in the order of the studies' UIDs."""
    there = Study.select(Study.uid).where(
        (Study.instance_count > 0) & Study.uid.in_(Conflict.select(Conflict.study_uid))
    )
    others = {uid for (uid,) in database.rows(there)}
    studies: dict[str, list[ConflictingObject]] = {}
    for found in conflicting_objects(database):
        if found.study_uid not in others:
            studies.setdefault(found.study_uid, []).append(found)
    return list(studies.values())


def summaries_in_conflict(database: Database, objects: ObjectStore) -> Iterator[tuple[StudyInConflict, str]]:
    """Yield the line in `studies`, and the patient's name, of each study with data sets in conflict only."""
    for found in studies_only_in_conflict(database):
        header = _header(objects, found[0].path)
        summary = StudyInConflict(
            found[0].study_uid,
            header.patient.get("PatientID"),
            header.study.get("AccessionNumber"),
            tuple(filter(None, (header.series.get("Modality"),))),
            0,
            0,
            study_date(header.study),
            len(found),
        )
        yield summary, str(header.patient.get("PatientName") or "")


def _header(objects: ObjectStore, path: str) -> Header:
    """Return the header of an object; an empty one where it cannot be read, which `verify` reports."""
    try:
        with objects.open(path) as file:
            return read_object(file)[0]
    except (NotPart10, IndexFault, OSError):
        return Header("", "", "", "")


def describe_conflicts(found: list[ConflictingObject]) -> str:
    """Return a message about a study whose data sets are all in conflict."""
    named = "; ".join(map(str, found[:MAX_NAMED]))
    more = f"; and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return f"has no other data sets than {len(found)} in conflict: {named}{more}"
