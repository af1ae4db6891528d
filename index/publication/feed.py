"""The change feed: each change of a resource, in order, with its version and time.

A version counts changes of content, not rebuilds. Entries are committed with the resources' contents and the
mark that the study is published. The files below `fhir/` follow the feed: index/publication/directory.py.
"""

import gzip
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from peewee import SQL, Query

from index.database.connection import Database
from index.database.tables import Change, ChangePruned, Resource, ResourceContent, Study, StudyResource
from index.errors import ChangesPruned
from index.publication.terms.extraction import Term, terms_of
from index.publication.terms.parameters import TERMS
from index.publication.terms.saving import remove_terms, save_terms

CREATED, UPDATED, DELETED = "created", "updated", "deleted"
# Entries that are read at a time, and so held in memory.
PAGE = 1000
# Of gzip: a resource is published more often than it is read, and level 9 takes five times as long.
LEVEL = 1

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class PublishedResource:
    """A resource and the content of its file, with that content's SHA-256 in hexadecimal."""

    fhir: str
    type: str
    name: str
    content: bytes
    sha256: str = field(init=False)

    @property
    def key(self) -> Key:
        """FHIR version, resource type and id."""
        return (self.fhir, self.type, self.name)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, as `changes` prints it. `at` is milliseconds since 1970 in UTC.

    `change` is created, updated or deleted; or complete: its study is, for this `reason`, while the resource
    is the version that it was.
    """

    seq: int
    change: str
    fhir: str
    type: str
    id: str
    version: int
    at: int
    reason: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as JSON has it; `at` in ISO 8601, and `reason` only where there is one."""
        at = datetime.fromtimestamp(self.at / 1000, UTC).isoformat(timespec="milliseconds")
        row = {**asdict(self), "at": at}
        if not self.reason:
            del row["reason"]
        return row


@dataclass(frozen=True, slots=True)
class FeedChanges:
    """What one publication of a study changes in the feed; rows by key.

    `kept`: rows of resources that the study still has. `dropped`: those that it no longer has; `others` has
    another study that has them, `orphaned` are those that none has. `unfilled` have not changed, but their
    content is not in the index, or their terms are not. `contents`, which are compressed, and `terms` are to
    be written.
    """

    changed: list[PublishedResource]
    kept: set[int]
    dropped: dict[Key, int]
    others: dict[Key, int]
    unfilled: dict[int, PublishedResource]
    contents: dict[Key, bytes]
    terms: dict[Key, list[Term]]

    @property
    def orphaned(self) -> set[Key]:
        """See the class."""
        return self.dropped.keys() - self.others.keys()


def compressed(content: bytes) -> bytes:
    """Return a resource as the index keeps it, and as HTTP hands it out (Content-Encoding: gzip)."""
    return gzip.compress(content, LEVEL, mtime=0)


def compare_with_feed(
    database: Database,
    study: int,
    resources: Iterable[PublishedResource],
    before: FeedChanges | None = None,
) -> FeedChanges:
    """Compare the resources that a study is to have with those in the feed.

    `before`: what an earlier comparison of the same resources has made.
    """
    known = {
        (fhir, kind, name): (row, "" if deleted else sha256, size and terms == TERMS)
        for row, fhir, kind, name, sha256, deleted, size, terms in _rows(database, resources)
    }
    changed, kept, unfilled = [], set(), {}
    for resource in resources:
        row, sha256, is_filled = known.get(resource.key, (None, "", False))
        if sha256 != resource.sha256:
            changed.append(resource)
        elif not is_filled:
            unfilled[row] = resource
        if row is not None:
            kept.add(row)
    dropped = {key: row for row, key in _resources_of(database, study) if row not in kept}
    others = {key: other for key, row in dropped.items() for other in _other_study(database, study, row)}
    written = (*changed, *unfilled.values())
    contents, terms = (before.contents, before.terms) if before else ({}, {})
    contents = {one.key: contents.get(one.key) or compressed(one.content) for one in written}
    terms = {one.key: terms.get(one.key) or terms_of(*one.key[:2], one.content) for one in written}
    return FeedChanges(changed, kept, dropped, others, unfilled, contents, terms)


def _rows(database: Database, resources: Iterable[PublishedResource]) -> list[tuple[Any, ...]]:
    """Return the rows of these resources, for each FHIR version by one query."""
    by_version: dict[str, list[PublishedResource]] = {}
    for resource in resources:
        by_version.setdefault(resource.fhir, []).append(resource)
    rows: list[tuple[Any, ...]] = []
    for fhir, of_version in by_version.items():
        row = Resource
        columns = row.id, row.fhir, row.type, row.name, row.sha256, row.deleted, row.size, row.terms
        query = row.select(*columns)
        names = [resource.name for resource in of_version]
        rows += database.rows(query.where((row.fhir == fhir) & row.name.in_(names)))
    return rows


def _resources_of(database: Database, study: int) -> Iterator[tuple[int, Key]]:
    query = Resource.select(Resource.id, Resource.fhir, Resource.type, Resource.name).join(StudyResource)
    for row, fhir, kind, name in database.rows(query.where(StudyResource.study == study)):
        yield row, (fhir, kind, name)


def _other_study(database: Database, study: int, resource: int) -> list[int]:
    """Return another study that has this resource, in a list; an empty one where there is none."""
    query = StudyResource.select(StudyResource.study).where(
        (StudyResource.resource == resource) & (StudyResource.study != study)
    )
    return [row for (row,) in database.rows(query.order_by(StudyResource.study).limit(1))]


def record_changes(
    database: Database,
    study: int,
    resources: Iterable[PublishedResource],
    before: FeedChanges | None = None,
) -> FeedChanges:
    """Write resources and entries of a publication, the ImagingStudy after those that it refers to.

    Inside the transaction that marks the study published. Until its end no other process draws a number: the
    order of numbers is that in which readers see them. `before`: see compare_with_feed. Return what was
    written.
    """
    database.lock_feed()
    changes = compare_with_feed(database, study, resources, before)
    now = time.time_ns() // 1_000_000
    rows = set(changes.kept)
    # The ImagingStudy is the first that is built.
    for resource in reversed(changes.changed):
        row = _upsert(database, resource, changes.contents[resource.key], now)
        save_terms(database, row, changes.terms[resource.key])
        rows.add(row)
    execute = database.execute
    for row, resource in changes.unfilled.items():
        if _fill(database, row, resource, changes.contents[resource.key]):
            save_terms(database, row, changes.terms[resource.key])
    for key, row in sorted(changes.dropped.items(), key=lambda one: one[0][1] != "ImagingStudy"):
        execute(
            StudyResource.delete().where((StudyResource.study == study) & (StudyResource.resource == row))
        )
        if other := changes.others.get(key):
            # Its content may be of this study: another study of the resource has to write it again.
            execute(Study.update(revision=Study.revision + 1).where(Study.id == other))
        else:
            _delete(database, row, now)
    known = {row for row, _ in _resources_of(database, study)}
    for row in rows - known:
        execute(StudyResource.insert(study=study, resource=row))
    return changes


def _upsert(database: Database, resource: PublishedResource, content: bytes, now: int) -> int:
    fhir, kind, name = resource.key
    found = database.rows(
        Resource.select(Resource.id, Resource.version, Resource.deleted).where(
            (Resource.fhir == fhir) & (Resource.type == kind) & (Resource.name == name)
        )
    )
    ((row, version, deleted),) = found or [(None, 0, 1)]
    version += 1
    values = {"version": version, "sha256": resource.sha256, "deleted": 0, "changed": now}
    values |= {"size": len(resource.content), "terms": TERMS}
    if row:
        database.execute(Resource.update(values).where(Resource.id == row))
    else:
        row = database.execute(Resource.insert(fhir=fhir, type=kind, name=name, **values))
    database.prepared(_put_content).run(id=row, content=content)
    change = CREATED if deleted else UPDATED
    database.execute(Change.insert(resource=row, version=version, kind=change, changed=now))
    return int(row)


def _put_content(p: Callable[[str], SQL]) -> Query:
    row = ResourceContent.insert({ResourceContent.id: p("id"), ResourceContent.content: p("content")})
    return row.on_conflict(
        conflict_target=[ResourceContent.id], update={ResourceContent.content: p("content")}
    )


def _fill(database: Database, row: int, resource: PublishedResource, content: bytes) -> bool:
    """Keep the content of a resource that an earlier version published, if it has not changed."""
    same = (Resource.id == row) & (Resource.sha256 == resource.sha256)
    filled = Resource.update(size=len(resource.content), terms=TERMS).where(same)
    if not database.execute(filled):
        return False
    database.prepared(_put_content).run(id=row, content=content)
    return True


def _delete(database: Database, row: int, now: int) -> None:
    gone = {"version": Resource.version + 1, "deleted": 1, "sha256": "", "size": 0, "changed": now}
    database.execute(Resource.update(gone).where(Resource.id == row))
    database.execute(ResourceContent.delete().where(ResourceContent.id == row))
    remove_terms(database, row)
    ((version,),) = database.rows(Resource.select(Resource.version).where(Resource.id == row))
    database.execute(Change.insert(resource=row, version=version, kind=DELETED, changed=now))


def changes(database: Database, since: int = 0) -> Iterator[Entry]:
    """Yield every change after number `since`, oldest first; after 0, every change that is still there.

    Raises ChangesPruned where entries after `since` have been deleted.
    """
    remembered = since
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
                Change.reason,
            )
            .join(Resource)
            .where(Change.id > since)
            .order_by(Change.id)
            .limit(PAGE)
        )
        rows = database.rows(query)
        # After the page was read: what was deleted before is marked by now.
        if 0 < remembered < (number := pruned(database)):
            raise ChangesPruned(
                f"changes up to number {number} have been deleted ([publish] keep_changes), {remembered} is"
                f" before: read all resources below fhir/, then the changes since {number}"
            )
        for row in rows:
            yield Entry(*row)
        if len(rows) < PAGE:
            return
        remembered = since = rows[-1][0]


def last_change(database: Database) -> int:
    """Return the number of the last entry; 0 where there is none. Raises NotKept, DatabaseFault."""
    rows = database.rows(Change.select(Change.id).order_by(Change.id.desc()).limit(1))
    return int(rows[0][0]) if rows else pruned(database)


def pruned(database: Database) -> int:
    """Return the number up to which entries have been deleted; 0: none was."""
    rows = database.rows(ChangePruned.select(ChangePruned.number))
    return max((int(number) for (number,) in rows), default=0)


def prune(database: Database, keep: int) -> int:
    """Delete all entries but those of the last `keep` numbers; return how many. Raises NotKept.

    In parts: publication waits for each transaction.
    """
    rows = database.rows(Change.select(Change.id).order_by(Change.id.desc()).limit(1))
    until = rows[0][0] - keep if rows else 0
    deleted = 0
    while first := database.rows(
        Change.select(Change.id).where(Change.id <= until).order_by(Change.id).limit(1)
    ):
        last = min(until, first[0][0] + PAGE - 1)
        with database.writing(durable=False):
            deleted += int(database.execute(Change.delete().where(Change.id <= last)))
            database.execute(ChangePruned.delete())
            database.execute(ChangePruned.insert(number=last))
    return deleted
