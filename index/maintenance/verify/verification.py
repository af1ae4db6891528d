"""All checks, in an order in which none trips over what another one has yet to mend."""

import time
from collections.abc import Callable, Iterator

import structlog

from index.database.tables import RemovedObject
from index.errors import IndexFault
from index.maintenance.deletion import Deletion
from index.maintenance.verify.conflicts import check_conflicts, check_studies_in_conflict
from index.maintenance.verify.context import Work
from index.maintenance.verify.findings import Finding, Kind
from index.maintenance.verify.objects import check_objects, check_orphans
from index.maintenance.verify.resources import check_incoming, check_resources, check_unpublished
from index.maintenance.verify.rows import check_counts, check_database, check_references
from index.reception.integrity import Integrity

log = structlog.get_logger(__name__)

# A deletion that is running beside us unlinks a page of files in less.
DELETION_SECONDS = 2.0


def verify(
    work: Work, deletion: Deletion, integrity: Integrity, publish: Callable[[], object]
) -> Iterator[Finding]:
    """Yield every fault, mended where that is asked for and can be done.

    `publish` publishes what has changed; it is called where no daemon does that.
    """
    yield from check_database(work)
    yield from _check_deletions(work, deletion)
    yield from check_incoming(work)
    yield from check_references(work)
    yield from check_orphans(work)
    yield from _check_objects(work, integrity)
    yield from check_conflicts(work)
    yield from check_studies_in_conflict(work)
    yield from check_counts(work)
    if not work.served:
        yield from check_unpublished(work)
    if work.repair and not work.served:
        publish()
    yield from check_resources(work)
    if work.repair and not work.served:
        publish()


def _check_objects(work: Work, integrity: Integrity) -> Iterator[Finding]:
    """Read every object, and keep for storage commitment when that was and which ones are not whole."""
    began = integrity.clock()
    damaged = []
    for finding in check_objects(work):
        if finding.kind in (Kind.OBJECT_MISSING, Kind.OBJECT_CORRUPT) and not finding.mended:
            damaged.append(finding.path)
        yield finding
    try:
        integrity.note_verified(began, damaged)
    except IndexFault:  # a full disk: what was found is found all the same
        log.exception("verification_not_noted")


def _check_deletions(work: Work, deletion: Deletion) -> Iterator[Finding]:
    """Find files that an interrupted deletion has left."""
    noted = work.database.rows(RemovedObject.select(RemovedObject.id, RemovedObject.path))
    if not noted:
        return
    time.sleep(min(DELETION_SECONDS, work.grace))
    still = set(work.database.rows(RemovedObject.select(RemovedObject.id)))
    if work.repair:
        deletion.finish()
    for row, path in noted:
        if (row,) in still:
            yield Finding(Kind.DELETION_UNFINISHED, path, path, "is deleted but for its file", work.repair)
