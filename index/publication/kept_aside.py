"""What is said of data sets in conflict: those kept aside, and studies of which there are no others.

A data set is in conflict where another one has its SOP Instance UID: index/reception/group_commit.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peewee import JOIN

from index.database.connection import Database
from index.database.tables import Conflict, Instance, Series, Study
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault
from index.publication.study_rows import Summary, study_date
from index.records import Header

# Named in one message; a study may have thousands.
NAMED = 5


@dataclass(frozen=True, slots=True)
class KeptAside:
    """A data set kept aside: its study, its file below the data directory, and the study that has its UID."""

    study_uid: str
    sop_instance_uid: str
    path: str
    in_study: str

    def __str__(self) -> str:
        where = f"study {self.in_study}" if self.in_study else "no study any more"
        return f"{self.path} with SOP Instance UID {self.sop_instance_uid}, which {where} has"


@dataclass(frozen=True, slots=True)
class StudyInConflict(Summary):
    """A study of which every data set is kept aside; its summary is what the first of them says."""

    conflicts: int


def kept_aside(database: Database, study_uid: str | None = None) -> list[KeptAside]:
    """Return what is kept aside, of one study or of all, where its like is not in the index by now."""
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
    return [KeptAside(study, uid, path, other or "") for study, uid, path, other in database.rows(query)]


def studies_kept_aside(database: Database) -> list[list[KeptAside]]:
    """Return the data sets of each study that has no other ones, in the order of the studies' UIDs."""
    there = Study.select(Study.uid).where(
        (Study.instance_count > 0) & Study.uid.in_(Conflict.select(Conflict.study_uid))
    )
    others = {uid for (uid,) in database.rows(there)}
    studies: dict[str, list[KeptAside]] = {}
    for one in kept_aside(database):
        if one.study_uid not in others:
            studies.setdefault(one.study_uid, []).append(one)
    return list(studies.values())


def summaries_in_conflict(database: Database, data: Path) -> Iterator[StudyInConflict]:
    """Yield what `studies` says of each study of which every data set is kept aside."""
    for found in studies_kept_aside(database):
        header = _header(data / found[0].path)
        yield StudyInConflict(
            found[0].study_uid,
            header.patient.get("PatientID"),
            header.study.get("AccessionNumber"),
            tuple(filter(None, (header.series.get("Modality"),))),
            0,
            0,
            study_date(header.study),
            len(found),
        )


def _header(path: Path) -> Header:
    """Return what a file says; nothing where it cannot be read, which `verify` tells."""
    try:
        with path.open("rb") as file:
            return read_object(file)[0]
    except (NotPart10, IndexFault, OSError):
        return Header("", "", "", "")


def sentence(found: list[KeptAside]) -> str:
    """Return what is to be said of a study of which every data set is kept aside."""
    named = "; ".join(str(one) for one in found[:NAMED])
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"has no other data sets than {len(found)} in conflict: {named}{more}"
