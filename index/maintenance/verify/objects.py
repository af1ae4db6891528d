"""Objects: that each row has its file, unchanged, and that each file has a row."""

from collections.abc import Iterator

import structlog
from peewee import JOIN

from index.database.attribute_tables import is_within, outdated
from index.database.instance_rows import ExistingInstance
from index.database.tables import (
    Instance,
    RemovedObject,
    Series,
    SeriesVariant,
    Study,
    StudyVariant,
    UnindexedObject,
)
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault, NotKept
from index.maintenance.verify.context import PAGE, VerifyContext
from index.maintenance.verify.findings import Finding, Kind
from index.maintenance.verify.rereading import HEADER_COLUMNS, UIDS, header_values, reread, row_values
from index.storage.object_keys import conflict_path
from index.storage.object_store import FOLDER_SIZE

log = structlog.get_logger(__name__)

# Rows of lower numbers than the last may be committed after it, by other processes on PostgreSQL.
LATE_ROWS = 10_000


class KnownPaths:
    """The paths of objects that have rows, one byte each: a million paths as texts would take 100 MB."""

    def __init__(self) -> None:
        self._folders: dict[str, bytearray] = {}
        self._others: set[str] = set()

    def add(self, path: str) -> None:
        """Add a path."""
        folder, _, name = path.rpartition("/")
        number = _number(name)
        if number is None:
            self._others.add(path)
        else:
            self._folders.setdefault(folder, bytearray(FOLDER_SIZE))[number] = 1

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        number = _number(name)
        if number is None:
            return path in self._others
        return folder in self._folders and bool(self._folders[folder][number])


def _number(name: str) -> int | None:
    """Return the number in the name of an object, below FOLDER_SIZE; None: it is another name."""
    try:
        number = int(name.removesuffix(".dcm"), 16)
    except ValueError:
        return None
    return number if name == f"{number:03x}.dcm" and number < FOLDER_SIZE else None


def check_objects_without_row(context: VerifyContext) -> Iterator[Finding]:
    """Find objects without a row; to repair that, index them, or give them to a row whose object is lost."""
    known = KnownPaths()
    last = _add_rows(context, known, 0)
    no_files: list[str] = []
    suspects = [
        path for path in context.objects.filed_since(None, pass_over=no_files.append) if path not in known
    ]
    for at in range(0, len(suspects), PAGE):
        settled = [path for path in suspects[at : at + PAGE] if context.is_object_settled(path)]
        # Look again: since the last look rows may have been added, and files removed.
        last = _add_rows(context, known, last)
        yield from _without_row(context, [path for path in settled if path not in known])
    for path in no_files:
        yield Finding(Kind.OBJECT_WITHOUT_ROW, path, path, "is not a file, left alone")


def _add_rows(context: VerifyContext, known: KnownPaths, last: int) -> int:
    """Add the paths of the rows behind the row `last`; return the last one. It needs no index of paths."""
    first = last - LATE_ROWS
    query = Instance.select(Instance.id, Instance.path).order_by(Instance.id).limit(PAGE)
    while rows := context.database.rows(query.where(Instance.id > first)):
        for _, path in rows:
            known.add(path)
        first = rows[-1][0]
    return max(first, last)


def _without_row(context: VerifyContext, suspects: list[str]) -> Iterator[Finding]:
    """Yield the objects that are neither removed now nor known."""
    removed = RemovedObject.select(RemovedObject.path).where(RemovedObject.path.in_(suspects))
    gone = {path for (path,) in context.database.rows(removed)}
    settled = [path for path in suspects if path not in gone]
    refused = dict(
        context.database.rows(
            UnindexedObject.select(UnindexedObject.path, UnindexedObject.reason).where(
                UnindexedObject.path.in_(settled)
            )
        )
    )
    for path in settled:
        yield _object_without_row(context, path, refused.get(path, ""))


def _object_without_row(context: VerifyContext, path: str, refused: str) -> Finding:
    """Index an object without a row where asked for; `refused` is why the index did not take it."""
    kind = Kind.OBJECT_NOT_INDEXED if refused else Kind.OBJECT_WITHOUT_ROW
    detail = refused or "is in no row"
    if not context.repair:
        return Finding(kind, path, path, detail)
    if target := _lost_object(context, path):
        context.objects.put_back(path, target)
        context.objects.remove(path)
        return Finding(kind, path, path, f"is the lost object {target}", mended=True)
    if reason := context.index_object(path):
        return Finding(kind, path, path, reason)
    return Finding(kind, path, path, detail, mended=True)


def _lost_object(context: VerifyContext, path: str) -> str | None:
    """Return the path of an equal object that is missing or corrupt, if a row has one."""
    try:
        with context.objects.open(path) as file:
            header, _ = read_object(file)
        sha1 = context.sha1(path)
    except (NotPart10, IndexFault, OSError):
        return None
    query = Instance.select(Instance.path, Instance.size).where(
        (Instance.uid == header.sop_instance_uid) & (Instance.sha1 == sha1)
    )
    for target, size in context.database.rows(query):
        if context.is_mine(target) and object_fault(context, target, size, sha1):
            return str(target)
    return None


def check_objects(context: VerifyContext) -> Iterator[Finding]:
    """Read every row's object: that it exists, is unchanged, and agrees with the row.

    Those of other nodes are theirs to read.
    """
    last = others = 0
    query = (
        Instance.select(Instance.id, Instance.path, Instance.size, Instance.sha1, *HEADER_COLUMNS)
        .join(Series, JOIN.LEFT_OUTER)
        .join(Study, JOIN.LEFT_OUTER)
        .join_from(Instance, StudyVariant, JOIN.LEFT_OUTER)
        .join_from(Instance, SeriesVariant, JOIN.LEFT_OUTER)
    )
    outdated_rows = outdated(context.database)
    while rows := context.database.rows(query.where(Instance.id > last).order_by(Instance.id).limit(PAGE)):
        for row, path, size, sha1, uid, *values in rows:
            if not context.is_mine(path):
                others += 1
                continue
            # A row without all rows that it refers to is not compared: check_references reports it.
            content = row_values((uid, *values)) if None not in values else ()
            # Of a row that was made with another attribute table only the UIDs can be compared.
            content = content[:UIDS] if is_within(row, outdated_rows) else content
            yield from _object(context, ExistingInstance(row, path, sha1), uid, size, content)
        last = rows[-1][0]
    if others:
        log.info("objects_of_other_nodes", not_verified=others)


def _object(
    context: VerifyContext, row: ExistingInstance, uid: str, size: int, content: tuple[str, ...]
) -> Iterator[Finding]:
    wrong = object_fault(context, row.path, size, row.sha1)
    if wrong is None:
        yield from _content(context, row, uid, content)
        return
    if not _is_current(context, row):
        return
    kind = Kind.OBJECT_CORRUPT if context.objects.is_there(row.path) else Kind.OBJECT_MISSING
    if kind is Kind.OBJECT_MISSING and context.objects.may_be_elsewhere(row.path):
        log.info("object_not_uploaded", path=row.path)
        return
    spare = conflict_path(row.sha1, context.objects.node)
    if object_fault(context, spare, size, row.sha1) is None:
        if context.repair:
            context.objects.put_back(spare, row.path)
        yield Finding(kind, uid, row.path, f"{wrong}; {spare} is equal", context.repair)
        return
    advice = "restore it from a backup, or `imagingstudyd delete` it and send it again"
    yield Finding(kind, uid, row.path, f"{wrong}: {advice}")


def object_fault(context: VerifyContext, path: str, size: int, sha1: str) -> str | None:
    """Return what is wrong with an object that should have this size in bytes and this SHA-1."""
    try:
        actual = context.objects.size(path)
        if actual is None:
            return f"No such file or directory, expected {size} bytes with SHA-1 {sha1}"
        if actual != size:
            return f"has {actual} bytes, expected {size} with SHA-1 {sha1}"
        found = context.sha1(path)
    except OSError as error:
        if context.objects.away:
            raise NotKept(f"{context.objects.url}: {context.objects.away}") from error
        return f"{error.strerror}, expected {size} bytes with SHA-1 {sha1}"
    return None if found == sha1 else f"has SHA-1 {found}, expected {sha1}"


def _is_current(context: VerifyContext, row: ExistingInstance) -> bool:
    """Return whether the row is unchanged: it may have been deleted or replaced while its file was read."""
    query = Instance.select(Instance.id).where(
        (Instance.id == row.id) & (Instance.path == row.path) & (Instance.sha1 == row.sha1)
    )
    return bool(context.database.rows(query))


def _content(
    context: VerifyContext, row: ExistingInstance, uid: str, content: tuple[str, ...]
) -> Iterator[Finding]:
    try:
        with context.objects.open(row.path) as file:
            expected = header_values(read_object(file)[0])
    except (NotPart10, IndexFault, OSError) as error:
        yield Finding(Kind.OBJECT_CORRUPT, uid, row.path, f"cannot be read: {error}")
        return
    if content != expected[: len(content)] and _is_current(context, row):
        mended = context.repair and bool(reread(context, [row.id]))
        yield Finding(Kind.ROW_DIFFERS, uid, row.path, "the row differs from its object", mended)
