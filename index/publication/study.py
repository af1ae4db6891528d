"""One publication of one study: its resources recorded in the index and its feed, then written as files."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from index.database.connection import Database
from index.database.tables import Study
from index.errors import NotExpressible, NotFound
from index.imagingstudy import Rules, build
from index.publication.directory import encode
from index.publication.feed import PublishedResource, compare_with_feed, record_changes
from index.publication.following import DirectoryFollower
from index.publication.listing import as_they_are, remove, save
from index.publication.study_rows import load_study
from index.records import Study as StudyRecord

log = structlog.get_logger(__name__)

# Resources whose logged issues are remembered: of as many studies as may grow at the same time, in three
# versions. Issues of a study that is published again later are logged once more.
REMEMBERED = 3000


@dataclass(frozen=True, slots=True)
class PublicationResult:
    """The result of a publication: the study's instances, and the files written and removed."""

    uid: str
    instances: int
    written: int
    removed: int


class StudyPublication:
    """Publishes studies, one at a time."""

    def __init__(
        self,
        database: Database,
        directory: DirectoryFollower,
        versions: Sequence[str],
        rules: Rules,
        match: Callable[[int, str], None],
    ) -> None:
        self._database = database
        self.directory = directory
        self._versions = versions
        self._rules = rules
        self._match = match
        # Hashes: a study may have thousands of sentences.
        self._logged: dict[str, bytes] = {}

    def publish(self, study: int) -> PublicationResult | None:
        """Publish a study, if it has changed; return None if it has not.

        Raises NotKept, DatabaseFault or OSError; then the study is still to be published.
        """
        self.directory.open()
        query = Study.select(Study.uid, Study.revision, Study.instance_count)
        rows = self._database.rows(query.where((Study.id == study) & (Study.revision != Study.published)))
        if not rows:
            # The last try may have failed at the files.
            self.directory.follow()
            return None
        ((uid, revision, instances),) = rows
        self._match(study, uid)
        changes = compare_with_feed(self._database, study, self._resources(uid))
        listed = as_they_are(self._database, [study])
        with self._database.writing():
            record_changes(self._database, study, changes)
            self._database.execute(Study.update(published=revision).where(Study.id == study))
            save(self._database, listed) if listed else remove(self._database, [study])
        self.directory.follow({resource.key: resource.content for resource in changes.changed})
        return PublicationResult(uid, instances, len(changes.changed), len(changes.orphaned))

    def resources(self, study: StudyRecord, version: str) -> list[PublishedResource]:
        """Return a study's resources in one FHIR version, the ImagingStudy first. Raises NotExpressible."""
        built = build(study, version, self._rules)
        self._log_issues(study.uid, version, tuple(built.issues))
        return [
            PublishedResource(version, resource["resourceType"], resource["id"], encode(resource))
            for resource in built.resources
        ]

    def _resources(self, uid: str) -> list[PublishedResource]:
        try:
            study = load_study(self._database, uid)
        except NotFound:
            return []
        found: list[PublishedResource] = []
        for version in self._versions:
            try:
                found += self.resources(study, version)
            except NotExpressible as error:
                # DSTU2 cannot hold any study that is only ordered: not worth a line in the log.
                self._log_issues(uid, version, (str(error),) if study.series else ())
        return found

    def _log_issues(self, uid: str, version: str, issues: tuple[str, ...]) -> None:
        """Log the issues of a study if they have changed since they were logged."""
        key = f"{version} {uid}"
        digest = hashlib.sha256("\n".join(issues).encode()).digest() if issues else b""
        if digest != self._logged.pop(key, b""):
            log.warning("doubts", study_uid=uid, fhir=version, doubts=issues)
        if digest:
            self._logged[key] = digest
        if len(self._logged) > REMEMBERED:
            del self._logged[next(iter(self._logged))]
