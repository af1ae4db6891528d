"""Deletion: rows first, in one transaction; then the files; the publisher takes the resources away.

What is to be unlinked is written down in that transaction: a crash in between must not bring back, as an
object without a row, what an operator has deleted.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from peewee import SQL, fn

from index.database.connection import Database
from index.database.instance_rows import InstanceRows
from index.database.tables import (
    Conflict,
    Instance,
    RemovedObject,
    Series,
    SeriesVariant,
    Study,
    StudyVariant,
)
from index.errors import NotFound, NotKept
from index.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

# Files that are unlinked between two looks at the table, and paths in one statement: below SQLite's limit.
BATCH = 500
# Instances that are deleted at one time where there is no room: their rows' pages fit into the reserve.
PART = 100


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion came to. `level` is study, series or instance; `bytes` are of the objects."""

    uid: str
    level: str
    studies: tuple[str, ...]
    instances: int
    bytes: int
    conflicts: int


class Deletion:
    """Deletes studies, series and instances from rows and objects.

    With `keep_tombstone` a study that is gone keeps what was said of it, so that its resource can say
    entered-in-error; without, nothing of it stays but its UID and the change feed.
    """

    def __init__(self, database: Database, objects: ObjectStore, *, keep_tombstone: bool) -> None:
        self._database = database
        self._objects = objects
        self._rows = InstanceRows(database)
        self._keep_tombstone = keep_tombstone

    def delete(self, uid: str) -> Deleted:
        """Delete the study, else the series, else the instance of this UID. Raises NotFound, NotKept.

        On a full disk this uses up the reserve, and deletes in parts where that is not enough: what is gone
        then makes room for what is still there.
        """
        try:
            deleted = self._delete(uid)
        except NotKept:
            if not self._objects.room.reserve.is_needed():
                raise
            with self._objects.room.reserve.used():
                return self._deleted(self._delete_without_room(uid))
        return self._deleted(deleted)

    def _deleted(self, deleted: Deleted) -> Deleted:
        log.info(
            "deleted",
            uid=deleted.uid,
            level=deleted.level,
            instances=deleted.instances,
            conflicts=deleted.conflicts,
        )
        try:
            self.finish()
        except NotKept as error:  # the rows are gone; the next start unlinks what is left
            log.warning("deletion_unfinished", uid=deleted.uid, reason=str(error))
        return deleted

    def _delete(self, uid: str) -> Deleted:
        with self._database.writing():
            deleted = self._study(uid) or self._series(uid) or self._instance(uid)
            if deleted is None:
                raise NotFound(f"{uid} is no study, series or instance in the index")
            return deleted

    def _delete_without_room(self, uid: str) -> Deleted:
        instances = size = conflicts = 0
        while True:
            try:
                last = self._delete(uid)
                break
            except NotKept:
                gone = self._delete_part(uid)
                if not gone:
                    raise
            instances += len(gone)
            size += sum(one.bytes for one in gone)
            conflicts += sum(one.conflicts for one in gone)
            self.finish()
            self._database.checkpoint()
        return dataclasses.replace(
            last,
            instances=instances + last.instances,
            bytes=size + last.bytes,
            conflicts=conflicts + last.conflicts,
        )

    def _delete_part(self, uid: str) -> list[Deleted]:
        """Delete some instances of a study or series, but the last one. Raises NotKept."""
        query = Instance.select(Instance.uid).join(Series).join(Study)
        query = query.where((Study.uid == uid) | (Series.uid == uid)).limit(PART + 1)
        found = [instance for (instance,) in self._database.rows(query)]
        with self._database.writing():
            return [gone for instance in found[1:] if (gone := self._instance(instance))]

    def finish(self) -> int:
        """Unlink the objects of deleted rows; return how many. A start does it for an earlier process.

        What cannot be unlinked is named, stays noted, and stops no other.
        """
        done = last = 0
        query = RemovedObject.select(RemovedObject.id, RemovedObject.path).order_by(RemovedObject.id)
        while rows := self._database.rows(query.where(RemovedObject.id > last).limit(BATCH)):
            last = rows[-1][0]
            gone = {row: path for row, path in rows if self._unlink(path)}
            self._objects.sync_folders(gone.values())
            with self._database.writing():
                self._database.execute(RemovedObject.delete().where(RemovedObject.id.in_(list(gone))))
            done += len(gone)
        return done

    def _unlink(self, path: str) -> bool:
        try:
            self._objects.remove(path)
        except OSError as error:
            log.warning("not_unlinked", path=path, reason=error.strerror)
            return False
        return True

    def _study(self, uid: str) -> Deleted | None:
        found = self._database.rows(
            Study.select(Study.id).where((Study.uid == uid) & (Study.instance_count > 0))
        )
        if not found:
            dropped = self._drop_conflicts(Conflict.study_uid == uid)
            return Deleted(uid, "study", (uid,), 0, 0, dropped) if dropped else None
        ((study,),) = found
        series = [
            row for (row,) in self._database.rows(Series.select(Series.id).where(Series.study == study))
        ]
        instances, size = self._remove_series(study, series)
        return Deleted(uid, "study", (uid,), instances, size, self._drop_conflicts(Conflict.study_uid == uid))

    def _series(self, uid: str) -> Deleted | None:
        query = Series.select(Series.id, Study.id, Study.uid).join(Study).where(Series.uid == uid)
        found = self._database.rows(query)
        if not found:
            return None
        removed = [self._remove_series(study, [series]) for series, study, _ in found]
        conflicts = self._drop_conflicts(Conflict.series_uid == uid)
        studies = tuple(study_uid for _, _, study_uid in found)
        return Deleted(
            uid, "series", studies, sum(n for n, _ in removed), sum(size for _, size in removed), conflicts
        )

    def _instance(self, uid: str) -> Deleted | None:
        query = Instance.select(
            Instance.id, Instance.path, Instance.size, Series.id, Series.instance_count, Study.id, Study.uid
        )
        found = self._database.rows(query.join(Series).join(Study).where(Instance.uid == uid))
        if not found:
            return None
        ((instance, path, size, series, others, study, study_uid),) = found
        if others == 1:
            self._remove_series(study, [series])
        else:
            self._rows.remove(instance)
            self._database.execute(RemovedObject.insert(path=path))
        return Deleted(uid, "instance", (study_uid,), 1, size, self._drop_conflicts(Conflict.uid == uid))

    def _remove_series(self, study: int, series: Sequence[int]) -> tuple[int, int]:
        """Remove the rows of these series of a study; return instances and bytes."""
        execute, instances, size = self._database.execute, 0, 0
        for row in series:
            mine = Instance.series == row
            ((count, total),) = self._database.rows(
                Instance.select(fn.COUNT(SQL("*")), fn.COALESCE(fn.SUM(Instance.size), 0)).where(mine)
            )
            votes = self._database.rows(
                Instance.select(Instance.study_variant, fn.COUNT(SQL("*")))
                .where(mine)
                .group_by(Instance.study_variant)
            )
            execute(
                RemovedObject.insert_from(Instance.select(Instance.path).where(mine), [RemovedObject.path])
            )
            execute(Instance.delete().where(mine))
            execute(SeriesVariant.delete().where(SeriesVariant.series == row))
            execute(Series.delete().where(Series.id == row))
            self._count_out(votes)
            instances += count
            size += int(total)
        execute(
            Study.update(
                instance_count=Study.instance_count - instances,
                series_count=Study.series_count - len(series),
                revision=Study.revision + 1,
            ).where(Study.id == study)
        )
        self._withdraw_if_empty(study)
        return instances, size

    def _count_out(self, votes: Iterable[tuple[int, int]]) -> None:
        for variant, count in votes:
            self._database.execute(
                StudyVariant.update(instance_count=StudyVariant.instance_count - count).where(
                    StudyVariant.id == variant
                )
            )

    def _withdraw_if_empty(self, study: int) -> None:
        """Mark a study that has lost its last instance; keep what its tombstone says, or nothing."""
        execute = self._database.execute
        empty = Study.update(withdrawn=1).where((Study.id == study) & (Study.instance_count == 0))
        gone = execute(empty)
        if not (gone and self._keep_tombstone):
            execute(
                StudyVariant.delete().where(
                    (StudyVariant.study == study) & (StudyVariant.instance_count == 0)
                )
            )

    def _drop_conflicts(self, which: Any) -> int:
        """Remove what was kept aside under the same UID."""
        self._database.execute(
            RemovedObject.insert_from(Conflict.select(Conflict.path).where(which), [RemovedObject.path])
        )
        return int(self._database.execute(Conflict.delete().where(which)))
