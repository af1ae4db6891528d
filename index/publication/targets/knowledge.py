"""What is known of a target's resources: what each study has here, and what the server has of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from peewee import JOIN, chunked

from index.completion.completions import COMPLETE
from index.database.connection import Database
from index.database.tables import Change, Resource, ResourceContent, Study, StudyResource
from index.database.target_tables import PublishedAtTarget
from index.publication.resources import Resources
from index.publication.targets.settings import TargetSettings

# Names in one statement, far below the 32,766 values that SQLite binds.
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Current:
    """A resource as it is published here now."""

    type: str
    name: str
    sha256: str
    content: bytes

    @property
    def local(self) -> str:
        """How others refer to it."""
        return f"{self.type}/{self.name}"


@dataclass(frozen=True, slots=True)
class Learnt:
    """A resource that the server has: under which id, with which ETag, and what it was sent."""

    server_id: str
    etag: str = ""
    sha256: str = ""


class Knowledge:
    """Reads the resources of studies, and keeps what was learnt of one target."""

    def __init__(self, database: Database, resources: Resources, target: str, fhir: str) -> None:
        self._database = database
        self._resources = resources
        self._target = target
        self._fhir = fhir

    def current(self, uid: str) -> list[Current]:
        """Return the resources of a study, by one snapshot; none where its ImagingStudy is deleted."""
        columns = Resource.type, Resource.name, Resource.sha256, ResourceContent.content
        query = Resource.select(*columns).join(StudyResource).join(Study).switch(Resource)
        query = query.join(ResourceContent, JOIN.LEFT_OUTER, on=(ResourceContent.id == Resource.id))
        which = (Study.uid == uid) & (Resource.fhir == self._fhir) & (Resource.deleted == 0)
        rows = self._database.rows(query.where(which))
        if not any(kind == "ImagingStudy" for kind, *_ in rows):
            return []
        return [self._read(*row) for row in rows]

    def complete(self, uid: str) -> tuple[int, str] | None:
        """Return with which number in the feed a study was last told to be complete, and why."""
        row = Change
        query = row.select(row.id, row.reason).join(Resource).order_by(row.id.desc()).limit(1)
        is_it = (Resource.fhir == self._fhir) & (Resource.type == "ImagingStudy") & (Resource.name == uid)
        found = self._database.rows(query.where(is_it, row.kind == COMPLETE))
        return (int(found[0][0]), str(found[0][1])) if found else None

    def one(self, kind: str, name: str) -> Current | None:
        """Return a resource as it is now; None: it is deleted."""
        found = self._resources.read(self._fhir, kind, name)
        return None if found is None or found.deleted else Current(kind, name, "", found.content)

    def _read(self, kind: str, name: str, sha256: str, gzipped: bytes | None) -> Current:
        import gzip

        if gzipped:
            return Current(kind, name, sha256, gzip.decompress(bytes(gzipped)))
        found = self._resources.read(self._fhir, kind, name)
        return Current(kind, name, sha256, found.content if found else b"")

    def learnt(self, resources: Iterable[tuple[str, str]]) -> dict[str, Learnt]:
        """Return what is known of these resources, by `Type/id` of ours."""
        row = PublishedAtTarget
        by_type: dict[str, list[str]] = {}
        for kind, name in resources:
            by_type.setdefault(kind, []).append(name)
        known = {}
        for kind, names in by_type.items():
            query = row.select(row.name, row.server_id, row.etag, row.sha256)
            which = (row.target == self._target) & (row.type == kind) & row.name.in_(names)
            for name, *values in self._database.rows(query.where(which)):
                known[f"{kind}/{name}"] = Learnt(*values)
        return known

    def in_force(self, settings: TargetSettings) -> TargetSettings:
        """Return the settings as the server wants them: see by_identifier."""
        row = PublishedAtTarget
        is_other = (row.target == self._target) & (row.server_id != row.name)
        found = row.select(row.id).where(is_other, row.type.not_in(sorted(settings.found_types))).limit(1)
        is_by_id = settings.write == "put" and settings.method != "webhook"
        return by_identifier(settings) if is_by_id and self._database.rows(found) else settings

    def referring(self, resources: Sequence[str]) -> list[str]:
        """Return the studies that refer to these, whose ids there change; inside a transaction.

        They are to be sent again: nothing is known any more of what they say there.
        """
        names: set[str] = set()
        for local in resources:
            kind, _, name = local.partition("/")
            query = Study.select(Study.uid).join(StudyResource).join(Resource)
            is_it = (Resource.fhir == self._fhir) & (Resource.type == kind) & (Resource.name == name)
            names |= {uid for (uid,) in self._database.rows(query.where(is_it))}
        row = PublishedAtTarget
        is_study = (row.target == self._target) & (row.type == "ImagingStudy")
        found = []
        for some in chunked(sorted(names), CHUNK):
            sent = self._database.rows(row.select(row.name).where(is_study, row.name.in_(some)))
            found += [name for (name,) in sent]
            self._database.execute(row.update(sha256="").where(is_study, row.name.in_(some)))
        return found

    def renamed(self, learnt: Mapping[str, Learnt]) -> list[str]:
        """Return those that the server had under another id before."""
        known = self.learnt(one.split("/", 1) for one in learnt)  # type: ignore[misc]  # pairs
        return [
            local
            for local, one in learnt.items()
            if local in known and known[local].server_id != one.server_id
        ]

    def keep(self, learnt: Mapping[str, Learnt], forgotten: Sequence[str] = ()) -> None:
        """Remember this, and forget those; inside a transaction."""
        row = PublishedAtTarget
        execute = self._database.execute
        for local in forgotten:
            kind, _, name = local.partition("/")
            execute(
                row.delete().where((row.target == self._target) & (row.type == kind) & (row.name == name))
            )
        for local, one in learnt.items():
            kind, _, name = local.partition("/")
            values = {"server_id": one.server_id, "etag": one.etag, "sha256": one.sha256}
            insert = row.insert(target=self._target, type=kind, name=name, **values)
            execute(insert.on_conflict(conflict_target=[row.target, row.type, row.name], update=values))


def gives_ids(learnt: Mapping[str, Learnt], looked_up: frozenset[str]) -> bool:
    """Return whether the server has given one of these, which were written, another id than ours."""
    parts = ((local.partition("/"), one) for local, one in learnt.items())
    return any(kind not in looked_up and one.server_id != name for (kind, _, name), one in parts)


def by_identifier(settings: TargetSettings) -> TargetSettings:
    """Return the settings of a server that gives ids whatever is asked for: as with write = conditional."""
    return settings.model_copy(update={"write": "conditional"})
