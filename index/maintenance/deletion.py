"""Deletion: the rows in one transaction, then the files; the publisher removes the resources.

That transaction also notes which files to unlink: after a crash in between, a deleted object must not come
back as an object without a row.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from peewee import SQL, fn

from index.database.connection import Database
from index.database.instance_rows import InstanceRows
from index.database.node import in_scope, nodes
from index.database.study_facts import study_facts
from index.database.tables import (
    Conflict,
    Instance,
    OutboxRow,
    RemovedObject,
    Series,
    SeriesVariant,
    Study,
    StudyListing,
    StudyVariant,
)
from index.errors import NotFound, NotKept
from index.hooks import Observer
from index.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

# Files that are unlinked at a time, and paths in one statement: below SQLite's limit.
BATCH = 500
# Instances that are deleted at a time on a full disk: their rows' pages fit into the reserve.
PART = 100


@dataclass(frozen=True, slots=True)
class Deleted:
    """The result of a deletion. `level` is study, series or instance; `bytes` are those of the objects."""

    uid: str
    level: str
    studies: tuple[str, ...]
    instances: int
    bytes: int
    conflicts: int


class Deletion:
    """Deletes studies, series and instances from rows and objects.

    With `keep_tombstone` a deleted study keeps its variants, so that its resource can become
    entered-in-error; without, only its UID and the change feed stay.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        *,
        keep_tombstone: bool,
        observer: Observer | None = None,
    ) -> None:
        self._database = database
        self._objects = objects
        self._rows = InstanceRows(database)
        self._keep_tombstone = keep_tombstone
        self._observer = observer

    def delete(self, uid: str) -> Deleted:
        """Delete the study, else the series, else the instance of this UID. Raises NotFound, NotKept.

        On a full disk this uses the reserve, and where that is not enough, deletes in parts: each part makes
        room for the next.
        """
        patient_id = self._patient_of(uid)
        try:
            deleted = self._delete(uid)
        except NotKept:
            if not self._objects.room.reserve.is_needed():
                raise
            with self._objects.room.reserve.used():
                return self._unlinked(self._delete_without_room(uid), patient_id)
        return self._unlinked(deleted, patient_id)

    def _patient_of(self, uid: str) -> str:
        """Return the PatientID of what is to be deleted, where somebody wants to know it."""
        return study_facts(self._database, uid).patient_id if self._observer else ""

    def delete_here(self, uid: str) -> Deleted:
        """Delete what this node keeps of a study, other nodes keep the rest. Raises NotFound, NotKept."""
        query = (
            Instance.select(Instance.uid).join(Series).join(Study).where(Study.uid == uid, self._is_here())
        )
        patient_id = self._patient_of(uid)
        parts: list[Deleted] = []
        while found := self._database.rows(query.limit(PART)):
            with self._database.writing():
                parts += [gone for (instance,) in found if (gone := self._instance(instance))]
        if not parts:
            raise NotFound(f"nothing of study {uid} is in {self._objects.data}")
        size, conflicts = sum(one.bytes for one in parts), sum(one.conflicts for one in parts)
        return self._unlinked(Deleted(uid, "study", (uid,), len(parts), size, conflicts), patient_id)

    @property
    def node(self) -> int:
        """The number of this node in the paths of its objects."""
        return self._objects.node

    def is_divided(self) -> bool:
        """Whether other nodes keep objects that are not found here."""
        return not (self._objects.is_shared or self._database.is_sqlite) and len(nodes(self._database)) > 1

    def held(self, studies: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return of these studies how many instances this node keeps, and their bytes."""
        counts = fn.COUNT(SQL("*")), fn.SUM(Instance.size)
        query = Series.select(Series.study, *counts).join(Instance).group_by(Series.study)
        rows = self._database.rows(query.where(Series.study.in_(studies), self._is_here()))
        return {study: (count, int(size)) for study, count, size in rows}

    def bytes_here(self) -> int:
        """Return the bytes of all instances that this node keeps; reads each row."""
        query = Instance.select(fn.COALESCE(fn.SUM(Instance.size), 0)).where(self._is_here())
        return int(self._database.rows(query)[0][0])

    def _is_here(self) -> Any:
        return in_scope(Instance.path, self._objects)

    def _unlinked(self, deleted: Deleted, patient_id: str) -> Deleted:
        """Unlink the files of deleted rows, as far as that is possible now."""
        log.info(
            "deleted",
            uid=deleted.uid,
            level=deleted.level,
            instances=deleted.instances,
            conflicts=deleted.conflicts,
        )
        if self._observer:
            self._observer.deleted(deleted.level, deleted.studies, patient_id)
        try:
            self.finish()
        except NotKept as error:  # the rows are deleted; the next start unlinks the rest
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
                part = self._delete_part(uid)
                if not part:
                    raise
            instances += len(part)
            size += sum(deleted.bytes for deleted in part)
            conflicts += sum(deleted.conflicts for deleted in part)
            self.finish()
            self._database.checkpoint()
        return dataclasses.replace(
            last,
            instances=instances + last.instances,
            bytes=size + last.bytes,
            conflicts=conflicts + last.conflicts,
        )

    def _delete_part(self, uid: str) -> list[Deleted]:
        """Delete some instances of a study or series, but not its last one. Raises NotKept."""
        query = Instance.select(Instance.uid).join(Series).join(Study)
        query = query.where((Study.uid == uid) | (Series.uid == uid)).limit(PART + 1)
        found = [instance for (instance,) in self._database.rows(query)]
        with self._database.writing():
            return [deleted for instance in found[1:] if (deleted := self._instance(instance))]

    def finish(self) -> int:
        """Unlink the objects of deleted rows; return how many. A start does it for an earlier process.

        Those of other nodes are left to these. A file that cannot be unlinked is logged, stays noted, and
        does not stop the others.
        """
        done = last = 0
        query = RemovedObject.select(RemovedObject.id, RemovedObject.path, RemovedObject.aside)
        query = query.where(in_scope(RemovedObject.path, self._objects)).order_by(RemovedObject.id)
        while rows := self._database.rows(query.where(RemovedObject.id > last).limit(BATCH)):
            last = rows[-1][0]
            unlinked = self._unlink_all(rows)
            self._objects.sync_folders(unlinked.values())
            with self._database.writing():
                self._database.execute(RemovedObject.delete().where(RemovedObject.id.in_(list(unlinked))))
            done += len(unlinked)
        return done

    def _unlink_all(self, rows: Sequence[tuple[int, str, str]]) -> dict[int, str]:
        """Unlink the objects of these rows; return row ids and paths of those that are gone."""
        if not self._objects.is_shared:
            return {row: path for row, path, aside in rows if self._unlink(path, aside)}
        here = [one for one in rows if not self._waits_elsewhere(one[1])]
        # A request to a store takes long: one is for many.
        several = {row: path for row, path, aside in here if not aside}
        try:
            self._objects.remove_all(list(several.values()))
        except OSError as error:
            log.warning("not_unlinked", path=next(iter(several.values())), reason=error.strerror)
            several = {}
        return several | {row: path for row, path, aside in here if aside and self._unlink(path, aside)}

    def _waits_elsewhere(self, path: str) -> bool:
        """Whether another node has yet to upload an object: it has to unlink it."""
        try:
            return self._objects.may_be_elsewhere(path) and self._objects.state(path) is None
        except OSError:
            return True

    def _unlink(self, path: str, aside: str) -> bool:
        try:
            if aside:
                self._objects.link_aside(path, aside)
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
        ((instance, path, size, series, count, study, study_uid),) = found
        if count == 1:
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
            variants = self._database.rows(
                Instance.select(Instance.study_variant, fn.COUNT(SQL("*")))
                .where(mine)
                .group_by(Instance.study_variant)
            )
            execute(
                RemovedObject.insert_from(Instance.select(Instance.path).where(mine), [RemovedObject.path])
            )
            execute(OutboxRow.delete().where(OutboxRow.uid.in_(Instance.select(Instance.uid).where(mine))))
            execute(Instance.delete().where(mine))
            execute(SeriesVariant.delete().where(SeriesVariant.series == row))
            execute(Series.delete().where(Series.id == row))
            self._count_out(variants)
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

    def _count_out(self, variants: Iterable[tuple[int, int]]) -> None:
        for variant, count in variants:
            self._database.execute(
                StudyVariant.update(instance_count=StudyVariant.instance_count - count).where(
                    StudyVariant.id == variant
                )
            )

    def _withdraw_if_empty(self, study: int) -> None:
        """Mark a study without instances as withdrawn; delete its variants, unless they are kept."""
        execute = self._database.execute
        empty = Study.update(withdrawn=1).where((Study.id == study) & (Study.instance_count == 0))
        is_empty = execute(empty)
        if is_empty:
            # It holds the patient's name; the publisher makes what is to be listed still.
            execute(StudyListing.delete().where(StudyListing.id == study))
        if not (is_empty and self._keep_tombstone):
            execute(
                StudyVariant.delete().where(
                    (StudyVariant.study == study) & (StudyVariant.instance_count == 0)
                )
            )

    def _drop_conflicts(self, which: Any) -> int:
        """Remove the conflicts of the same UID; return how many."""
        self._database.execute(
            RemovedObject.insert_from(Conflict.select(Conflict.path).where(which), [RemovedObject.path])
        )
        return int(self._database.execute(Conflict.delete().where(which)))
