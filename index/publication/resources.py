"""The published resources, as they are now and when they changed: what HTTP hands out."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, SQL, Query

from index.database.connection import Database
from index.database.tables import Change, Resource, ResourceContent, StudyResource
from index.publication.directory import Directory
from index.publication.feed import Entry, compressed
from index.storage.durable import open_file


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A published resource: the bytes of its file, compressed by gzip (RFC 1952).

    `changed`: when this version was published, in milliseconds since 1970 in UTC; 0: it is not known, for an
    earlier version did it and the feed was pruned. A deleted one has a version, and no content.
    """

    fhir: str
    type: str
    name: str
    version: int
    changed: int
    deleted: bool
    gzipped: bytes

    @property
    def content(self) -> bytes:
        """The bytes of its file; empty where it is deleted."""
        return gzip.decompress(self.gzipped) if self.gzipped else b""


class Resources:
    """Resources by FHIR version, type and id."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory

    def read(self, fhir: str, type: str, name: str) -> StoredResource | None:  # noqa: A002  FHIR's word
        """Return a resource as it was published last; None: there never was one. Raises NotKept."""
        with self._database.connection():
            row = self._database.prepared(_select).one(fhir=fhir, type=type, name=name)
        if row is None:
            return None
        version, changed, deleted, content = row
        gzipped = b"" if deleted else bytes(content or b"") or self._of_file(fhir, type, name)
        return StoredResource(fhir, type, name, version, changed, bool(deleted), gzipped)

    def of_patient(self, fhir: str, name: str) -> list[tuple[str, str]]:
        """Return type and id of a Patient and of all that their studies have, the Patient first.

        Nothing where there is no such Patient. Raises NotKept.
        """
        found = self._database.rows(
            Resource.select(Resource.id).where(
                (Resource.fhir == fhir)
                & (Resource.type == "Patient")
                & (Resource.name == name)
                & (Resource.deleted == 0)
            )
        )
        if not found:
            return []
        of_studies = StudyResource.select(StudyResource.study).where(StudyResource.resource == found[0][0])
        query = Resource.select(Resource.type, Resource.name).distinct().join(StudyResource)
        query = query.where(StudyResource.study.in_(of_studies), Resource.fhir == fhir, Resource.deleted == 0)
        own = ("Patient", name)
        return [own, *sorted({(kind, one) for kind, one in self._database.rows(query)} - {own})]

    def _of_file(self, *key: str) -> bytes:
        """Return the same of a resource that an earlier version published as a file only."""
        try:
            with open_file(self._directory.path(*key)) as file:
                return compressed(file.read())
        except OSError:
            return b""

    def history(self, fhir: str, type: str, name: str) -> list[Entry]:  # noqa: A002
        """Return the changes of a resource in the change feed, oldest first, those that are still there.

        Entries that its study is complete are left out: they are no versions. Only the last content is kept.
        Raises NotKept.
        """
        with self._database.connection():
            rows = self._database.prepared(_select_entries).run(fhir=fhir, type=type, name=name).fetchall()
        return [Entry(number, kind, fhir, type, name, version, at) for number, kind, version, at in rows]


def _is(p: Callable[[str], SQL]) -> Any:
    return (Resource.fhir == p("fhir")) & (Resource.type == p("type")) & (Resource.name == p("name"))


def _select(p: Callable[[str], SQL]) -> Query:
    columns = Resource.version, Resource.changed, Resource.deleted, ResourceContent.content
    query = Resource.select(*columns)
    return query.join(ResourceContent, JOIN.LEFT_OUTER, on=(ResourceContent.id == Resource.id)).where(_is(p))


def _select_entries(p: Callable[[str], SQL]) -> Query:
    query = Change.select(Change.id, Change.kind, Change.version, Change.changed)
    return query.join(Resource).where(_is(p) & (Change.reason == SQL("''"))).order_by(Change.id)
