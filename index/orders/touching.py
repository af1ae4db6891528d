"""Which studies an order or a patient concerns: they are marked changed, so that they are published anew."""

import time
from collections.abc import Iterable, Sequence

from index.database import Database
from index.models import Study, StudyVariant
from index.orders.models import ImagingOrder, StudyKey, StudyOrder

Key = tuple[str, str]


def now() -> int:
    """Return milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000


def ensure_study(database: Database, uid: str) -> None:
    """Make sure that the study that an order asks for has a row, and mark it changed."""
    at = now()
    row = Study.insert(uid=uid, first_received=at, last_received=at)
    database.execute(
        row.on_conflict(conflict_target=[Study.uid], update={Study.revision: Study.revision + 1})
    )


def touch_studies(database: Database, uids: Iterable[str]) -> None:
    """Mark studies changed, by their UIDs."""
    database.execute(Study.update(revision=Study.revision + 1).where(Study.uid.in_(list(uids))))


def touch_patients(database: Database, patients: Sequence[int]) -> None:
    """Mark every study changed that has instances or an order of these patients (row ids)."""
    variants = StudyVariant.select(StudyVariant.study).where(StudyVariant.patient.in_(patients))
    theirs = ImagingOrder.patient.in_(patients)
    ordered = ImagingOrder.select(ImagingOrder.study_uid).where(theirs)
    matched = StudyOrder.select(StudyOrder.study_uid).join(ImagingOrder).where(theirs)
    concerned = Study.id.in_(variants) | Study.uid.in_(ordered) | Study.uid.in_(matched)
    database.execute(Study.update(revision=Study.revision + 1).where(concerned))


def touch_order(database: Database, order: int, keys: Iterable[Key]) -> None:
    """Mark every study changed that is matched to an order, or that has one of its keys."""
    found = {
        uid
        for (uid,) in database.rows(StudyOrder.select(StudyOrder.study_uid).where(StudyOrder.order == order))
    }
    for kind, value in keys:
        query = StudyKey.select(StudyKey.study_uid).where((StudyKey.kind == kind) & (StudyKey.value == value))
        found |= {uid for (uid,) in database.rows(query)}
    touch_studies(database, found)
