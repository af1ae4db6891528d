"""One instance from its first byte to its commit; reception and import take the same way."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from index.database.instance_rows import StoredObject
from index.dicom.header import read_header
from index.dicom.uids import check_header, check_uid
from index.errors import Disagreement
from index.reception.group_commit import GroupCommit, Outcome
from index.records import Header, Origin
from index.storage.object_store import ObjectStore
from index.storage.object_writer import ObjectWriter


@dataclass(frozen=True, slots=True)
class Kept:
    """An instance that is kept: what became of it, and what it is. `size` is of the file, in bytes."""

    outcome: Outcome
    header: Header
    size: int
    studies: frozenset[int] = field(default=frozenset())


class InstanceReceiver:
    """An instance on its way in. End it with `keep` or `discard`."""

    def __init__(
        self,
        objects: ObjectStore,
        commits: GroupCommit,
        origin: Origin,
        command: tuple[str, str],
        transfer_syntax: str,
        on_kept: Callable[[Origin, frozenset[int]], None],
        limit: int | None = None,
    ) -> None:
        """Begin. `limit` is the peer's own one, in bytes. Raises NotKept below the watermark, InvalidUID."""
        self._commits = commits
        self._origin = origin
        self._command = (
            check_uid("Affected SOP Class UID", command[0]),
            check_uid("Affected SOP Instance UID", command[1]),
        )
        self._transfer_syntax = transfer_syntax
        self._on_kept = on_kept
        self._object = ObjectWriter(objects, *self._command, transfer_syntax, limit)
        # The writer's method itself, since it is called for every few kilobytes. Raises NotKept, TooLarge.
        self.write = self._object.write

    @property
    def size(self) -> int:
        """Bytes of the data set so far."""
        return self._object.data_set_size

    def keep(self) -> Kept:
        """Make the instance durable and index it; return when both have happened.

        Raises Unreadable, InvalidUID, Disagreement, NotKept or DatabaseFault; then nothing is left behind.
        """
        try:
            header = self._header()
            is_spooled = self._object.is_small and self._commits.takes_unsynced()
            unsynced = self._object.unsynced() if is_spooled else None
            filed = StoredObject(
                header,
                self._origin,
                self._transfer_syntax,
                unsynced.path if unsynced else self._object.file(),
                self._object.size,
                self._object.sha1.hex(),
                time.time_ns() // 1_000_000,
            )
            if unsynced:
                unsynced.describe(header.sop_instance_uid, self._origin, filed.received)
        except BaseException:
            self.discard()
            raise
        entry = self._commits.submit(filed, unsynced=unsynced)
        if entry.studies:
            self._on_kept(self._origin, entry.studies)
        return Kept(entry.outcome, header, filed.size, entry.studies)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._object.discard()

    def _header(self) -> Header:
        incoming = self._object
        header = read_header(
            incoming.head, self._transfer_syntax, more=incoming.read, size=incoming.data_set_size
        )
        check_header(header)
        if not header.sop_class_uid:
            header = dataclasses.replace(header, sop_class_uid=self._command[0])
        for name, said, found in zip(
            ("SOP Class UID", "SOP Instance UID"),
            self._command,
            (header.sop_class_uid, header.sop_instance_uid),
            strict=True,
        ):
            if said != found:
                raise Disagreement(f"{name}: command says {said}, data set says {found}")
        return header
