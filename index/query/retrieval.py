"""The instances that are to be sent: found by their keys, counted, and read in pages."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from peewee import SQL, Expression, fn

from index.database.connection import Database
from index.database.extracted import extracted
from index.database.instance_rows import issuer_of
from index.database.node import place_of
from index.database.tables import Instance, Patient, Series, Study, StudyVariant
from index.errors import NotFound, NotKept
from index.query.retrieve_keys import RetrieveKeys, read_retrieve_keys
from index.records import StoredInstance
from index.storage.data_set_file import DataSetFile
from index.storage.object_file import ObjectFile
from index.storage.object_keys import node_of
from index.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Rows in memory at one time.
PAGE = 500
# Values of one query, far below the 32,766 that SQLite binds.
BATCH = 1000
# Instances come in where the last one did so long ago, at most, in seconds.
RECEIVING_SECONDS = 0.1
# How long the next one that is sent waits for them, at most, in seconds.
LONGEST_PAUSE = 0.02

T = TypeVar("T")

Kinds = dict[tuple[str, str], int]
"""How many instances there are of each SOP Class UID and transfer syntax UID."""


class InstanceSelection:
    """The instances that were there when it was made: counted, and iterated as often as is wanted."""

    def __init__(self, database: Database, parts: Sequence[Expression]) -> None:
        """`parts` are conditions of Instance rows, which exclude each other."""
        self._database = database
        self._parts = parts
        ((last,),) = database.rows(Instance.select(fn.MAX(Instance.id)))
        # Later arrivals are left out: they are not counted.
        self._last = last or 0
        self.kinds = self._count()
        self.total = sum(self.kinds.values())

    def _count(self) -> Kinds:
        kinds: Kinds = {}
        columns = Instance.sop_class_uid, Instance.transfer_syntax
        for part in self._parts:
            query = Instance.select(*columns, fn.COUNT(SQL("*"))).where(part & (Instance.id <= self._last))
            for sop_class, syntax, count in self._database.rows(query.group_by(*columns)):
                kinds[sop_class, syntax] = kinds.get((sop_class, syntax), 0) + count
        return kinds

    def by_study(self) -> dict[str, dict[str, int]]:
        """Return by Study Instance UID how many instances there are of each SOP Class UID. Raises NotKept."""
        found: dict[str, dict[str, int]] = {}
        columns = Study.uid, Instance.sop_class_uid
        for part in self._parts:
            query = Instance.select(*columns, fn.COUNT(SQL("*"))).join(Series).join(Study)
            query = query.where(part & (Instance.id <= self._last)).group_by(*columns)
            for study, sop_class, count in self._database.rows(query):
                classes = found.setdefault(study, {})
                classes[sop_class] = classes.get(sop_class, 0) + count
        return found

    def instances(self, sop_classes: Collection[str] | None = None) -> Iterator[StoredInstance]:
        """Yield the instances, in order of arrival within each series; only those of `sop_classes` if given.

        Raises NotKept, DatabaseFault.
        """
        for part in self._parts:
            if sop_classes is not None:
                part &= Instance.sop_class_uid.in_(list(sop_classes))  # noqa: PLW2901
            begun = 0
            while rows := self._page(part, begun):
                begun = rows[-1][0]
                for _, *row in rows:
                    yield StoredInstance(*row)

    def _page(self, part: Expression, begun: int) -> list[tuple[Any, ...]]:
        mine = part & (Instance.id > begun) & (Instance.id <= self._last)
        query = Instance.select(Instance.id, *_COLUMNS).where(mine).order_by(Instance.id)
        return self._database.rows(query.limit(PAGE))


_COLUMNS = (Instance.uid, Instance.sop_class_uid, Instance.transfer_syntax, Instance.path, Instance.size)


class Retrieval:
    """Finds instances for retrieval and for sending, and opens their data sets."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        catch_up: Callable[[], bool],
        last_received: Callable[[], float] = lambda: -math.inf,
    ) -> None:
        """`catch_up` waits until what has been acknowledged is indexed; False where that takes longer.

        `last_received`: when the last instance began to come in, on the monotonic clock.
        """
        self._last_received = last_received
        self._database = database
        self._objects = objects
        self._catch_up = catch_up

    def select(self, identifier: "Dataset", *, patient_root: bool) -> InstanceSelection:
        """Return what the identifier of a C-MOVE or C-GET asks for.

        Raises BadIdentifier; NotKept where what was acknowledged cannot be indexed now; DatabaseFault.
        """
        return self.find(read_retrieve_keys(identifier, patient_root=patient_root))

    def find(self, keys: RetrieveKeys) -> InstanceSelection:
        """Return the instances of these keys. Raises NotKept, DatabaseFault."""
        if not self._catch_up():
            raise NotKept("index: instances that were acknowledged wait to be indexed")
        studies = self._studies(keys)
        if keys.instances:
            return InstanceSelection(self._database, self._instances(keys, studies))
        series = self._series(keys, studies)
        return InstanceSelection(self._database, [Instance.series == row for row in series])

    def find_uid(self, uid: str) -> InstanceSelection:
        """Return the instances of a study, else of a series, else the instance of this UID.

        Raises NotFound, NotKept, DatabaseFault.
        """
        for keys in (
            RetrieveKeys(studies=(uid,)),
            RetrieveKeys(series=(uid,)),
            RetrieveKeys(instances=(uid,)),
        ):
            if (found := self.find(keys)).total:
                return found
        raise NotFound(f"{uid} is no study, series or instance in the index")

    def give_way(self, seconds: float) -> None:
        """Pause after an instance whose sending took so long, while others come in: those go first."""
        if time.monotonic() - self._last_received() < RECEIVING_SECONDS:
            time.sleep(min(seconds, LONGEST_PAUSE))

    def open(self, instance: StoredInstance) -> DataSetFile:
        """Open the data set of an instance. Raises NotFound, Unreadable, OSError."""
        try:
            return self._open(instance)
        except FileNotFoundError:
            # It may have been replaced since its row was read, or deleted.
            rows = self._database.rows(Instance.select(*_COLUMNS).where(Instance.uid == instance.uid))
            again = StoredInstance(*rows[0]) if rows else None
            if again is None or again.path == instance.path:
                raise NotFound(f"{instance.uid}: {'its object is missing' if again else 'deleted'}") from None
            if (again.sop_class_uid, again.transfer_syntax) != (
                instance.sop_class_uid,
                instance.transfer_syntax,
            ):
                raise NotFound(f"{instance.uid}: replaced by one of another kind") from None
            return self._open(again)

    def _open(self, instance: StoredInstance) -> DataSetFile:
        if not self._objects.holds(instance.path):
            where = place_of(self._database, node_of(instance.path))
            raise NotFound(f"{instance.uid}: is kept by node {where}")
        return DataSetFile(
            self._object(instance),
            (instance.sop_class_uid, instance.uid, instance.transfer_syntax),
            instance.size,
        )

    def _object(self, instance: StoredInstance) -> ObjectFile:
        try:
            return self._objects.open(instance.path)
        except FileNotFoundError:
            if not self._objects.may_be_elsewhere(instance.path):
                raise
            where = place_of(self._database, node_of(instance.path))
            raise NotFound(f"{instance.uid}: is not in the store; node {where} has to upload it") from None

    def _studies(self, keys: RetrieveKeys) -> set[int] | None:
        """Return the rows of the studies that the keys allow; None: all."""
        if not (keys.patient_id or keys.studies):
            return None
        found: set[int] = set()
        for uids in _batches(keys.studies):
            found.update(self._column(Study.select(Study.id).where(Study.uid.in_(uids))))
        if not keys.patient_id:
            return found
        variant = StudyVariant
        query = variant.select(variant.study).where(
            variant.patient.in_(self._patients(keys)) & (variant.instance_count > 0)
        )
        of_patient = set(self._column(query))
        return found & of_patient if keys.studies else of_patient

    def _patients(self, keys: RetrieveKeys) -> list[int]:
        """Return the rows of the patients with this PatientID, which instances or ADT messages give them."""
        variant, column = StudyVariant, StudyVariant.patient_attributes
        number = extracted(self._database, column, "PatientID")
        rows = self._database.rows(variant.select(variant.patient, column).where(number == keys.patient_id))
        number = extracted(self._database, Patient.attributes, "PatientID")
        by_adt = (Patient.attributes != SQL("'{}'")) & (number == keys.patient_id)
        rows += self._database.rows(Patient.select(Patient.id, Patient.attributes).where(by_adt))
        return sorted(
            {
                row
                for row, attributes in rows
                if attributes.get("PatientID") == keys.patient_id
                and (not keys.issuer or issuer_of(attributes) in ("", keys.issuer))
            }
        )

    def _series(self, keys: RetrieveKeys, studies: set[int] | None) -> list[int]:
        found: list[int] = []
        if keys.series:
            for uids in _batches(keys.series):
                rows = self._database.rows(
                    Series.select(Series.id, Series.study).where(Series.uid.in_(uids)).order_by(Series.id)
                )
                found += [row for row, study in rows if studies is None or study in studies]
            return found
        for some in _batches(sorted(studies or ())):
            found += self._column(
                Series.select(Series.id).where(Series.study.in_(some)).order_by(Series.study, Series.id)
            )
        return found

    def _instances(self, keys: RetrieveKeys, studies: set[int] | None) -> list[Expression]:
        series = self._series(keys, studies) if keys.series or studies is not None else None
        found = []
        for uids in _batches(keys.instances):
            part = Instance.uid.in_(uids)
            if series is not None:
                # As a subquery by row id: an index of the series would be the wrong one for a few UIDs.
                rows = self._database.rows(Instance.select(Instance.id, Instance.series).where(part))
                allowed = set(series)
                part = Instance.id.in_([row for row, of_series in rows if of_series in allowed])
            found.append(part)
        return found

    def _column(self, query: Any) -> list[int]:
        return [row for (row,) in self._database.rows(query)]


def _batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))
