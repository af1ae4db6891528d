"""One publication of one study: what it is to have, written as files, then recorded in the feed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from index.database.connection import Database
from index.database.tables import Study
from index.errors import NotExpressible, NotFound
from index.imagingstudy import Rules, build
from index.publication.directory import Directory, encode
from index.publication.feed import Published, plan, record
from index.publication.study_rows import load
from index.records import Study as StudyRecord

log = structlog.get_logger(__name__)

# Resources of which is remembered which doubts were logged: of as many studies as may well grow at once, in
# three versions. Those of a study that is published again later are logged once more.
REMEMBERED = 3000


@dataclass(frozen=True, slots=True)
class Result:
    """What a publication came to: the study's instances, and the files that it wrote and removed."""

    uid: str
    instances: int
    written: int
    removed: int


class StudyPublication:
    """Publishes studies, one at a time."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        versions: Sequence[str],
        rules: Rules,
        match: Callable[[int, str], None],
    ) -> None:
        self._database = database
        self._directory = directory
        self._versions = versions
        self._rules = rules
        self._match = match
        # Hashes: a study may have thousands of sentences.
        self._said: dict[str, bytes] = {}

    def publish(self, study: int) -> Result | None:
        """Publish a study where it has changed.

        Raises NotKept, DatabaseFault or OSError; then nothing is marked.
        """
        query = Study.select(Study.uid, Study.revision, Study.instance_count)
        rows = self._database.rows(query.where((Study.id == study) & (Study.revision != Study.published)))
        if not rows:
            return None
        ((uid, revision, instances),) = rows
        self._match(study, uid)
        planned = plan(self._database, study, self._resources(uid))
        # What an ImagingStudy refers to stands before it.
        for one in reversed(planned.changed):
            self._directory.write(one.fhir, one.type, one.name, one.content)
        for key in planned.orphaned:
            self._directory.remove(*key)
        with self._database.writing():
            record(self._database, study, planned)
            self._database.execute(Study.update(published=revision).where(Study.id == study))
        return Result(uid, instances, len(planned.changed), len(planned.orphaned))

    def resources(self, study: StudyRecord, version: str) -> list[Published]:
        """Return what a study has in one FHIR version, the ImagingStudy first. Raises NotExpressible."""
        built = build(study, version, self._rules)
        self._say(study.uid, version, tuple(built.doubts))
        return [Published(version, one["resourceType"], one["id"], encode(one)) for one in built.resources]

    def _resources(self, uid: str) -> list[Published]:
        try:
            study = load(self._database, uid)
        except NotFound:
            return []
        found: list[Published] = []
        for version in self._versions:
            try:
                found += self.resources(study, version)
            except NotExpressible as error:
                # That DSTU2 has no word for a study that is only ordered is no news.
                self._say(uid, version, (str(error),) if study.series else ())
        return found

    def _say(self, uid: str, version: str, doubts: tuple[str, ...]) -> None:
        """Log the doubts of a study when they are other ones than the last time."""
        key = f"{version} {uid}"
        said = hashlib.sha256("\n".join(doubts).encode()).digest() if doubts else b""
        if said != self._said.pop(key, b""):
            log.warning("doubts", study_uid=uid, fhir=version, doubts=doubts)
        if said:
            self._said[key] = said
        if len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
