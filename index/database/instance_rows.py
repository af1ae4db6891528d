"""The statements that write rows, and how the rows of one instance are counted in and out again.

All of it runs inside the write transaction of reception/indexing.py.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peewee import SQL, Query, chunked

from index.database.connection import Database, Statement
from index.database.statements import FindOrMake, Statements
from index.database.tables import (
    Conflict,
    Instance,
    OutboxRow,
    Series,
    SeriesVariant,
    Study,
    StudyVariant,
    canonical,
)
from index.records import Attributes, Header, Origin

# Hexadecimal digits of a digest that tells attribute sets and patients apart: 128 bits.
DIGEST_LENGTH = 32

# SOP Instance UIDs that one statement looks up, far below the 32,766 values that SQLite binds.
UIDS_AT_ONCE = 512

# Series that are remembered while they arrive; a place is some kB.
PLACES = 1000


def digest(*parts: Any) -> str:
    """Return the identity of JSON values."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:DIGEST_LENGTH]


def patient_key(header: Header) -> str:
    """Return the patient's FHIR id: of PatientID and issuer; without a PatientID, of the study alone.

    Strangers are never merged: two patients without an ID may be two people.
    """
    return identity_key(header.patient, header.study_uid)


def identity_key(patient: Attributes, study_uid: str) -> str:
    """Return the same of what an order says of its patient, and of the study that it asks for."""
    if not patient.get("PatientID"):
        return digest("study", study_uid)
    return digest("patient", patient["PatientID"], issuer_of(patient))


def issuer_of(patient: Attributes) -> str:
    """Return who issued PatientID: the universal name where there is one, else the local one, or none."""
    qualifiers = patient.get("IssuerOfPatientIDQualifiersSequence") or [{}]
    return str(qualifiers[0].get("UniversalEntityID") or patient.get("IssuerOfPatientID", ""))


def study_digest(key: str, patient: str, study: str) -> str:
    """Return the identity of a study's variant: patient, and canonical attributes of patient and study."""
    return digest(key, patient, study)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that stands durably in `objects/`, and what is to be remembered of it."""

    header: Header
    origin: Origin
    transfer_syntax: str
    path: str
    size: int
    sha1: str
    received: int
    # The values of its row; made before its commit, which others wait for.
    row: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        row = {
            "uid": self.header.sop_instance_uid,
            "sop_class_uid": self.header.sop_class_uid,
            "transfer_syntax": self.transfer_syntax,
            "attributes": canonical(self.header.instance),
            "doubts": canonical(self.header.doubts),
            "path": self.path,
            "size": self.size,
            "sha1": self.sha1,
            "received": self.received,
        }
        object.__setattr__(self, "row", row)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the last instance of a series from one source went: its attributes, and the rows' ids."""

    patient: Attributes
    study: Attributes
    series: Attributes
    study_id: int
    ids: Mapping[str, int]  # series, study_variant, series_variant, source

    def fits(self, header: Header) -> bool:
        """Whether another instance says the same of patient, study and series."""
        # Tuples, since equal members are most often the same: see dicom/decoding.py.
        theirs = header.series, header.study, header.patient
        return (self.series, self.study, self.patient) == theirs


def _key(stored: StoredObject) -> tuple[str, ...]:
    header, origin = stored.header, stored.origin
    return header.study_uid, header.series_uid, origin.calling_aet, origin.called_aet, origin.address


# Rows that count their instances, besides the study's.
_COUNTED = ("series", "study_variant", "series_variant")


class RowGone(Exception):
    """A row that was remembered is no more: another process has deleted it. The batch is to be begun anew."""


@dataclass(frozen=True, slots=True)
class ExistingInstance:
    """What the index already holds under a SOP Instance UID."""

    id: int
    path: str
    sha1: str
    study_id: int = 0
    received: int = 0


class InstanceRows:
    """The rows of instances, added batch by batch.

    The rows of the series that arrive now are remembered, so that an instance that says nothing new costs one
    statement. What a transaction has made is remembered when `committed` is called.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = Statements(database)
        self._places: dict[tuple[str, ...], _Place] = {}
        # What the transaction has found so far.
        self._found: dict[tuple[FindOrMake, str], int] = {}
        self._fresh: dict[tuple[str, ...], _Place] = {}

    def find(self, uids: Sequence[str]) -> dict[str, ExistingInstance]:
        """Return what the index holds under these SOP Instance UIDs."""
        columns = Instance.uid, Instance.series, Instance.id, Instance.path, Instance.sha1, Instance.received
        rows = [
            row
            for some in chunked(uids, UIDS_AT_ONCE)
            for row in self._database.rows(Instance.select(*columns).where(Instance.uid.in_(some)))
        ]
        # Mostly there are none. In one query PostgreSQL may read all series, since it expects many.
        studies: dict[int, int] = {}
        for some in chunked({series for _, series, *_ in rows}, UIDS_AT_ONCE):
            query = Series.select(Series.id, Series.study).where(Series.id.in_(some))
            studies.update(self._database.rows(query))
        return {
            uid: ExistingInstance(row, path, sha1, studies[series], received)
            for uid, series, row, path, sha1, received in rows
            if series in studies
        }

    def add(self, batch: Sequence[StoredObject]) -> list[int]:
        """Insert instances that are not there, and count them in; return their studies' row ids.

        Raises RowGone, IntegrityError; then the transaction is to be rolled back.
        """
        new_series: dict[int, int] = {}
        self._found.clear()
        places = self._all_places(batch, new_series)
        self._sql.instance.run_many(
            [{**stored.row, **place.ids} for stored, place in zip(batch, places, strict=True)]
        )
        self._count(batch, places, Counter(new_series.values()))
        return [place.study_id for place in places]

    def _all_places(self, batch: Sequence[StoredObject], new_series: dict[int, int]) -> list[_Place]:
        """Return the places of a batch. Missing rows are made in one order, so that writers never cross."""
        order = list(range(len(batch)))
        if not self._database.is_sqlite:
            order.sort(key=lambda number: _key(batch[number]))
        places = {number: self._place(batch[number], new_series) for number in order}
        return [places[number] for number in range(len(batch))]

    def committed(self) -> None:
        """What was added since the last call is committed."""
        if self._fresh:
            if len(self._places) > PLACES:
                self._places.clear()
            self._places |= self._fresh
            self._fresh.clear()

    def rolled_back(self) -> None:
        """What was added is no more, and what is remembered may be wrong: ids may come again."""
        self._fresh.clear()
        self._places.clear()

    def _place(self, stored: StoredObject, new_series: dict[int, int]) -> _Place:
        key = _key(stored)
        place = self._fresh.get(key) or self._places.get(key)
        if place is None or not place.fits(stored.header):
            place = self._fresh[key] = self._find_place(stored, new_series)
        return place

    def _count(
        self, batch: Sequence[StoredObject], places: Sequence[_Place], new_series: Counter[int]
    ) -> None:
        """Count the batch into its rows: one update for each row, sorted, so that writers never cross."""
        received: dict[int, int] = {}
        counts: dict[str, Counter[int]] = {name: Counter() for name in ("study", *_COUNTED)}
        for stored, place in zip(batch, places, strict=True):
            received[place.study_id] = max(received.get(place.study_id, 0), stored.received)
            counts["study"][place.study_id] += 1
            for name in _COUNTED:
                counts[name][place.ids[name]] += 1
        studies = [
            {"id": row, "number": number, "series": new_series[row], "received": received[row]}
            for row, number in sorted(counts.pop("study").items())
        ]
        self._run_each(self._sql.count_study, studies)
        for name in _COUNTED:
            rows = [{"id": row, "number": number} for row, number in sorted(counts[name].items())]
            self._run_each(self._sql.count[name], rows)

    def _run_each(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows and statement.run_many(rows) != len(rows):
            raise RowGone

    def _find_place(self, stored: StoredObject, new_series: dict[int, int]) -> _Place:
        """Find or make the rows that an instance belongs to; a series that is new is noted with its study."""
        header = stored.header
        uid = header.study_uid
        study = self._once(self._sql.study, uid, {"uid": uid, "received": stored.received})
        series, count = self._sql.series.one(study=study, uid=header.series_uid)
        if not count:
            new_series[series] = study
        key = patient_key(header)
        patient_attributes, attributes = canonical(header.patient), canonical(header.study)
        says = study_digest(key, patient_attributes, attributes)
        variant = {
            "study": study,
            "digest": says,
            "patient": self._once(self._sql.patient, key, {"key": key}),
            "patient_attributes": patient_attributes,
            "attributes": attributes,
        }
        study_variant = self._once(self._sql.study_variant, f"{study} {says}", variant)
        series_attributes = canonical(header.series)
        (series_variant,) = self._sql.series_variant.one(
            series=series, digest=digest(series_attributes), attributes=series_attributes
        )
        return _Place(
            header.patient,
            header.study,
            header.series,
            study,
            {
                "series": int(series),
                "study_variant": study_variant,
                "series_variant": int(series_variant),
                "source": self._source_id(stored.origin),
            },
        )

    def _once(self, statement: FindOrMake, key: str, values: Mapping[str, Any]) -> int:
        """Return the row id that a statement finds; the series of a study in one batch ask for it once."""
        found = self._found.get((statement, key))
        if found is None:
            found = self._found[statement, key] = int(statement.one(**values)[0])
        return found

    def remove(self, instance: int) -> None:
        """Delete an instance's row and count it out; what it was the last of goes with it.

        The study's row stays, even when empty: what removes the last instance decides about it.
        Raises RowGone.
        """
        query = Instance.select(
            Instance.series, Series.study, Instance.study_variant, Instance.series_variant
        ).join(Series)
        series, study, study_variant, series_variant = self._row(query.where(Instance.id == instance))
        run = self._database.execute
        uid = Instance.select(Instance.uid).where(Instance.id == instance)
        run(OutboxRow.delete().where(OutboxRow.uid.in_(uid)))
        run(Instance.delete().where(Instance.id == instance))
        for table, row in ((StudyVariant, study_variant), (SeriesVariant, series_variant)):
            run(table.update(instance_count=table.instance_count - 1).where(table.id == row))
            run(table.delete().where((table.id == row) & (table.instance_count == 0)))
        run(Series.update(instance_count=Series.instance_count - 1).where(Series.id == series))
        gone = run(Series.delete().where((Series.id == series) & (Series.instance_count == 0)))
        run(
            Study.update(
                instance_count=Study.instance_count - 1,
                series_count=Study.series_count - gone,
                revision=Study.revision + 1,
            ).where(Study.id == study)
        )

    def add_conflict(self, stored: StoredObject, path: str) -> str:
        """Remember a data set that is kept aside at this path; return where it is kept.

        That is elsewhere where another node has kept the same before.
        """
        self._found.clear()
        header = stored.header
        uids = header.sop_instance_uid, header.study_uid, header.series_uid, stored.transfer_syntax
        source = self._source_id(stored.origin)
        return self._add_conflict(path, *uids, stored.size, stored.sha1, source, stored.received)

    def set_aside(self, instance: int, path: str) -> None:
        """The same for an instance that is about to be replaced. Raises RowGone."""
        query = Instance.select(
            Instance.uid,
            Study.uid,
            Series.uid,
            Instance.transfer_syntax,
            Instance.size,
            Instance.sha1,
            Instance.source,
            Instance.received,
        )
        self._add_conflict(path, *self._row(query.join(Series).join(Study).where(Instance.id == instance)))

    def _add_conflict(
        self,
        path: str,
        uid: str,
        study_uid: str,
        series_uid: str,
        transfer_syntax: str,
        size: int,
        sha1: str,
        source: int,
        received: int,
    ) -> str:
        row = Conflict.insert(
            uid=uid,
            study_uid=study_uid,
            series_uid=series_uid,
            transfer_syntax=transfer_syntax,
            path=path,
            size=size,
            sha1=sha1,
            source=source,
            received=received,
        )
        self._database.execute(row.on_conflict_ignore())
        return str(self._row(Conflict.select(Conflict.path).where(Conflict.sha1 == sha1))[0])

    def _row(self, query: Query) -> tuple[Any, ...]:
        """Return the one row of a query. Raises RowGone."""
        rows = self._database.rows(query)
        if not rows:
            raise RowGone
        return rows[0]

    def conflicts(self) -> int:
        """Return how many data sets are kept aside."""
        return int(self._database.rows(Conflict.select(SQL("count(*)")))[0][0])

    def _source_id(self, origin: Origin) -> int:
        values = {
            "calling_aet": origin.calling_aet,
            "called_aet": origin.called_aet,
            "address": origin.address,
        }
        return self._once(self._sql.source, canonical(values), values)
