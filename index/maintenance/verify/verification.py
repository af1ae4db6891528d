"""All checks, in such an order that no check needs the repair of a later one."""

import time
from collections.abc import Callable, Iterator

import structlog

from index.commitment.integrity import Integrity
from index.database.node import in_scope
from index.database.tables import RemovedObject
from index.errors import IndexFault
from index.maintenance.deletion import Deletion
from index.maintenance.verify.conflicts import check_conflicts, check_studies_in_conflict
from index.maintenance.verify.context import VerifyContext
from index.maintenance.verify.findings import Finding, Kind
from index.maintenance.verify.objects import check_objects, check_objects_without_row
from index.maintenance.verify.rereading import check_attribute_table
from index.maintenance.verify.resources import check_incoming, check_resources, check_unpublished
from index.maintenance.verify.rows import check_counts, check_database, check_references

log = structlog.get_logger(__name__)

# A deletion in another process unlinks a page of files in less. In seconds.
DELETION_SECONDS = 2.0


def verify(
    context: VerifyContext, deletion: Deletion, integrity: Integrity, publish: Callable[[], object]
) -> Iterator[Finding]:
    """Yield every fault, repaired if `context.repair` is set and it can be.

    `publish` publishes changed studies; it is called where no daemon does that.
    """
    yield from check_database(context)
    yield from _check_deletions(context, deletion)
    yield from check_incoming(context)
    yield from check_references(context)
    yield from check_attribute_table(context, publish)
    yield from check_objects_without_row(context)
    yield from _check_objects(context, integrity)
    yield from check_conflicts(context)
    yield from check_studies_in_conflict(context)
    yield from check_counts(context)
    if not context.served:
        yield from check_unpublished(context)
    if context.repair and not context.served:
        publish()
    yield from check_resources(context)
    if context.repair and not context.served:
        publish()


def _check_objects(context: VerifyContext, integrity: Integrity) -> Iterator[Finding]:
    """Read every object; note for storage commitment when that was, and which are damaged."""
    began = integrity.clock()
    damaged = []
    for finding in check_objects(context):
        if finding.kind in (Kind.OBJECT_MISSING, Kind.OBJECT_CORRUPT) and not finding.mended:
            damaged.append(finding.path)
        yield finding
    try:
        integrity.note_verified(began, damaged)
    except IndexFault:  # a full disk: the findings are right even so
        log.exception("verification_not_noted")


def _check_deletions(context: VerifyContext, deletion: Deletion) -> Iterator[Finding]:
    """Find files of an interrupted deletion."""
    query = RemovedObject.select(RemovedObject.id, RemovedObject.path)
    noted = context.database.rows(query.where(in_scope(RemovedObject.path, context.objects)))
    if not noted:
        return
    time.sleep(min(DELETION_SECONDS, context.grace))
    remaining = set(context.database.rows(RemovedObject.select(RemovedObject.id)))
    if context.repair:
        deletion.finish()
    for row, path in noted:
        if (row,) in remaining:
            yield Finding(
                Kind.DELETION_UNFINISHED, path, path, "is deleted, but its file is not", context.repair
            )
