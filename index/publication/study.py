"""One publication of one study: its resources recorded in the index and its feed, then written as files."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import structlog

from index.completion.completions import Completions
from index.database.claims import Claim, Work
from index.database.connection import Database
from index.database.node import clock
from index.database.tables import Study
from index.errors import ClaimLost, NotExpressible, NotFound
from index.imagingstudy import Rules, build
from index.imagingstudy.bundle import transaction_bundle
from index.publication.directory import encode
from index.publication.feed import PublishedResource, compare_with_feed, record_changes
from index.publication.following import DirectoryFollower
from index.publication.listing import as_they_are, remove, save
from index.publication.study_rows import load_study
from index.records import Study as StudyRecord
from index.settings import PublishSettings

log = structlog.get_logger(__name__)

# Resources whose logged issues are remembered: of as many studies as may grow at the same time, in three
# versions. Issues of a study that is published again later are logged once more.
REMEMBERED = 3000
# Until another node has published a study: most take some hundredths of a second.
BUSY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class PublicationResult:
    """The result of a publication: the study's instances, and the files written and removed."""

    uid: str
    instances: int
    written: int
    removed: int


@dataclass(frozen=True, slots=True)
class Postponed:
    """Another node publishes the study, or has just done so: it is to be tried again in so many seconds."""

    seconds: float


class StudyPublication:
    """Publishes studies, one at a time; each study at one node at a time."""

    def __init__(
        self,
        database: Database,
        pace: PublishSettings,
        directory: DirectoryFollower,
        versions: Sequence[str],
        rules: Rules,
        match: Callable[[int, str], None],
        completions: Completions,
    ) -> None:
        self._database = database
        self._pace = pace
        self.directory = directory
        self._versions = versions
        self._rules = rules
        self._match = match
        self._completions = completions
        # Hashes: a study may have thousands of sentences.
        self._logged: dict[str, bytes] = {}

    def publish(self, study: int, *, grows: bool = False) -> PublicationResult | Postponed | None:
        """Publish a study, if it has changed; return None if it has not.

        `grows`: not before its pause is over. Raises NotKept, DatabaseFault or OSError; then the study is
        still to be published.
        """
        self.directory.open()
        with self._database.claims.claimed(Work.STUDY, study) as claim:
            if claim is None:
                return Postponed(BUSY_SECONDS)
            return self._publish(study, claim, grows=grows)

    def _publish(self, study: int, claim: Claim, *, grows: bool) -> PublicationResult | Postponed | None:
        began = time.monotonic()
        row, database = Study, self._database
        query = row.select(row.uid, row.revision, row.published, row.paused_until - clock(database))
        ((uid, revision, published, pause),) = database.rows(query.where(row.id == study)) or [("", 0, 0, 0)]
        if revision == published:
            # The last try may have failed at the files.
            self.directory.follow()
            return None
        # With SQLite nobody else publishes, and the publisher keeps the pause.
        if grows and pause > 0 and not database.is_sqlite:
            return Postponed(pause / 1000)
        # What changes from here on makes another revision, and is published by that.
        self._match(study, uid)
        with database.reading():
            record, listed = self._load(uid), as_they_are(database, [study])
        instances = sum(len(series.instances) for series in record.series) if record else 0
        resources = self._resources(uid, record)
        before = compare_with_feed(database, study, resources)
        with database.writing():
            if self._hold([study, *before.others.values()]).get(study) != published:
                raise ClaimLost(f"study {uid}: another process has published it meanwhile")
            self._completions.note(uid, instances)
            changes = record_changes(database, study, resources, before)
            seconds = max(self._pace.interval, self._pace.backoff * (time.monotonic() - began))
            until = clock(database) + int(seconds * 1000)
            database.execute(row.update(published=revision, paused_until=until).where(row.id == study))
            save(database, listed) if listed else remove(database, [study])
            claim.check()
        self._completions.published(uid)
        self.directory.follow({resource.key: resource.content for resource in changes.changed})
        return PublicationResult(uid, instances, len(changes.changed), len(changes.orphaned))

    def _hold(self, studies: Sequence[int]) -> dict[int, int]:
        """Keep others from changing these studies in this transaction; return what of each is published."""
        query = Study.select(Study.id, Study.published).where(Study.id.in_(studies)).order_by(Study.id)
        if not self._database.is_sqlite:
            # Rows that refer to a study may be added meanwhile.
            query = query.for_update("FOR NO KEY UPDATE")  # type: ignore[arg-type]  # peewee's stubs
        return dict(self._database.rows(query))

    def _load(self, uid: str) -> StudyRecord | None:
        try:
            return load_study(self._database, uid)
        except NotFound:
            return None

    def resources(self, study: StudyRecord, version: str) -> list[PublishedResource]:
        """Return a study's resources in one FHIR version, the ImagingStudy first. Raises NotExpressible."""
        built = build(study, version, self._rules)
        self._log_issues(study.uid, version, tuple(built.issues))
        return [
            PublishedResource(version, resource["resourceType"], resource["id"], encode(resource))
            for resource in built.resources
        ]

    def _resources(self, uid: str, study: StudyRecord | None) -> list[PublishedResource]:
        if study is None:
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


def bundled(resources: Sequence[PublishedResource]) -> bytes:
    """Return a study's resources as one transaction Bundle, which any FHIR server takes."""
    return encode(transaction_bundle(orjson.loads(one.content) for one in resources))
