"""Data sets in conflict: that `conflicts/` and its rows agree, and that no study has no others."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from index.database.instance_rows import InstanceRows, StoredObject
from index.database.tables import Conflict
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault
from index.maintenance.verify.context import VerifyContext
from index.maintenance.verify.findings import Finding, Kind
from index.maintenance.verify.objects import object_fault
from index.publication.conflicts import describe_conflicts, studies_only_in_conflict
from index.records import Origin
from index.storage.object_keys import conflict_path


def check_conflicts(context: VerifyContext) -> Iterator[Finding]:
    """Compare `conflicts/` with its rows."""
    rows = context.database.rows(
        Conflict.select(Conflict.id, Conflict.uid, Conflict.path, Conflict.size, Conflict.sha1)
    )
    for row, uid, path, size, sha1 in filter(lambda one: context.is_mine(one[2]), rows):
        if wrong := object_fault(context, path, size, sha1):
            exists = context.objects.is_there(path)
            if context.repair and not exists:
                with context.database.writing():
                    context.database.execute(Conflict.delete().where(Conflict.id == row))
            kind = Kind.CONFLICT_CORRUPT if exists else Kind.CONFLICT_MISSING
            yield Finding(kind, uid, path, wrong, context.repair and not exists)
    yield from _unknown_conflicts(context, {path for _, _, path, _, _ in rows})


def check_studies_in_conflict(context: VerifyContext) -> Iterator[Finding]:
    """Find studies whose data sets are all in conflict: no query finds them."""
    advice = "`imagingstudyd delete` the study that is wrong, and `import` the files of the other"
    for found in studies_only_in_conflict(context.database):
        detail = f"{describe_conflicts(found)}: {advice}"
        yield Finding(Kind.STUDY_IN_CONFLICT, found[0].study_uid, found[0].path, detail)


def _unknown_conflicts(context: VerifyContext, known: AbstractSet[str]) -> Iterator[Finding]:
    for path in context.objects.kept_aside():
        if path in known or not context.is_object_settled(path):
            continue
        reason = _index_or_add_row(context, path) if context.repair else None
        yield Finding(
            Kind.CONFLICT_WITHOUT_ROW, path, path, reason or "is in no row", context.repair and reason is None
        )


def _index_or_add_row(context: VerifyContext, path: str) -> str | None:
    """Add a row for an object, or index it if no instance has its UID; return why that cannot be done."""
    try:
        with context.objects.open(path) as file:
            header, meta = read_object(file)
            size, received = file.size, file.modified
        sha1 = context.sha1(path)
    except (NotPart10, IndexFault, OSError) as error:
        return str(error)
    rows = InstanceRows(context.database)
    known = rows.find([header.sop_instance_uid]).get(header.sop_instance_uid)
    if known is None:
        return context.index_object(path)
    if known.sha1 == sha1:
        context.objects.remove(path)
        return None
    origin = Origin(association="recovery")
    filed = StoredObject(
        header,
        origin,
        meta.transfer_syntax,
        conflict_path(sha1, context.objects.node),
        size,
        sha1,
        received,
    )
    with context.database.writing():
        kept = rows.add_conflict(filed, filed.path)
    if kept != filed.path:  # another node keeps the same
        context.objects.remove(path)
    elif path != filed.path:
        context.objects.move(path, filed.path)
    return None
