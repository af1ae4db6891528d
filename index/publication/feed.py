"""The change feed: which resource changed, which version that made, when, in order, none missing.

A version counts changes of content, not rebuilds. The entry is committed after the file stands, together
with the mark that the study is published: after a crash in between both are done again, and the entry comes.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from index.database.connection import Database
from index.database.tables import Change, Resource, Study, StudyResource

CREATED, UPDATED, DELETED = "created", "updated", "deleted"
# Entries that are read at one time: a reader of a long feed holds this many in memory.
PAGE = 1000

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Published:
    """A resource as it is to stand in its file."""

    fhir: str
    type: str
    name: str
    content: bytes

    @property
    def key(self) -> Key:
        """FHIR version, resource type and id."""
        return (self.fhir, self.type, self.name)

    @property
    def sha256(self) -> str:
        """What tells one content from another."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, as `changes` prints it. `at` is milliseconds since 1970 in UTC."""

    seq: int
    change: str
    fhir: str
    type: str
    id: str
    version: int
    at: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one publication of a study changes."""

    changed: list[Published]
    kept: set[int]
    dropped: dict[Key, int]
    orphaned: dict[Key, int]


def plan(database: Database, study: int, resources: Iterable[Published]) -> Plan:
    """Compare what a study is to have with what the feed knows of it."""
    known = {
        key: (row, sha256, deleted)
        for row, *key_, sha256, deleted in _of(database, resources)
        for key in [tuple(key_)]
    }
    changed, kept = [], set()
    for one in resources:
        row, sha256, deleted = known.get(one.key, (None, "", 1))
        if row is None or deleted or sha256 != one.sha256:
            changed.append(one)
        if row is not None:
            kept.add(row)
    dropped = {key: row for row, key in _referred(database, study) if row not in kept}
    orphaned = {key: row for key, row in dropped.items() if not _others(database, study, row)}
    return Plan(changed, kept, dropped, orphaned)


def _of(database: Database, resources: Iterable[Published]) -> list[tuple[Any, ...]]:
    """Return the rows of these resources, for each FHIR version by one query."""
    by_version: dict[str, list[Published]] = {}
    for one in resources:
        by_version.setdefault(one.fhir, []).append(one)
    rows: list[tuple[Any, ...]] = []
    for fhir, some in by_version.items():
        query = Resource.select(
            Resource.id, Resource.fhir, Resource.type, Resource.name, Resource.sha256, Resource.deleted
        ).where((Resource.fhir == fhir) & Resource.name.in_([one.name for one in some]))
        rows += database.rows(query)
    return rows


def _referred(database: Database, study: int) -> Iterator[tuple[int, Key]]:
    query = Resource.select(Resource.id, Resource.fhir, Resource.type, Resource.name).join(StudyResource)
    for row, *key in database.rows(query.where(StudyResource.study == study)):
        yield row, (key[0], key[1], key[2])


def _others(database: Database, study: int, resource: int) -> list[int]:
    """Return another study that a resource is written for, if there is one."""
    query = StudyResource.select(StudyResource.study).where(
        (StudyResource.resource == resource) & (StudyResource.study != study)
    )
    return [row for (row,) in database.rows(query.order_by(StudyResource.study).limit(1))]


def record(database: Database, study: int, planned: Plan) -> None:
    """Write the entries of a publication whose files stand; inside the transaction that marks it."""
    now = time.time_ns() // 1_000_000
    rows = set(planned.kept)
    for one in planned.changed:
        rows.add(_upsert(database, one, now))
    execute = database.execute
    for key, row in planned.dropped.items():
        execute(
            StudyResource.delete().where((StudyResource.study == study) & (StudyResource.resource == row))
        )
        if key in planned.orphaned:
            _delete(database, row, now)
        else:
            # What several studies say of it was told from this one too: another must say it anew.
            others = _others(database, study, row)
            execute(Study.update(revision=Study.revision + 1).where(Study.id.in_(others)))
    known = {row for row, _ in _referred(database, study)}
    for row in rows - known:
        execute(StudyResource.insert(study=study, resource=row))


def _upsert(database: Database, one: Published, now: int) -> int:
    fhir, kind, name = one.key
    found = database.rows(
        Resource.select(Resource.id, Resource.version, Resource.deleted).where(
            (Resource.fhir == fhir) & (Resource.type == kind) & (Resource.name == name)
        )
    )
    if found:
        ((row, version, deleted),) = found
        version += 1
        database.execute(
            Resource.update(version=version, sha256=one.sha256, deleted=0).where(Resource.id == row)
        )
    else:
        version, deleted = 1, 1
        row = database.execute(
            Resource.insert(fhir=fhir, type=kind, name=name, version=1, sha256=one.sha256, deleted=0)
        )
    change = CREATED if deleted else UPDATED
    database.execute(Change.insert(resource=row, version=version, kind=change, changed=now))
    return int(row)


def _delete(database: Database, row: int, now: int) -> None:
    database.execute(
        Resource.update(version=Resource.version + 1, deleted=1, sha256="").where(Resource.id == row)
    )
    ((version,),) = database.rows(Resource.select(Resource.version).where(Resource.id == row))
    database.execute(Change.insert(resource=row, version=version, kind=DELETED, changed=now))


def changes(database: Database, since: int = 0) -> Iterator[Entry]:
    """Yield every change behind number `since`, oldest first."""
    while True:
        query = (
            Change.select(
                Change.id,
                Change.kind,
                Resource.fhir,
                Resource.type,
                Resource.name,
                Change.version,
                Change.changed,
            )
            .join(Resource)
            .where(Change.id > since)
            .order_by(Change.id)
            .limit(PAGE)
        )
        rows = database.rows(query)
        for row in rows:
            yield Entry(*row)
        if len(rows) < PAGE:
            return
        since = rows[-1][0]
