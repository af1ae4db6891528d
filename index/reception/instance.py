"""One instance from its first byte to its commit; reception and import take the same way."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from index.database.instance_rows import StoredObject
from index.dicom.header import read_header
from index.dicom.uids import check_header, check_uid
from index.errors import Disagreement, NotKept
from index.reception.arrival import Arrival, Outcome
from index.records import Header, Origin
from index.storage.object_store import ObjectStore
from index.storage.object_writer import ObjectWriter


@dataclass(frozen=True, slots=True)
class Kept:
    """An instance that is kept. `size` is of the file, in bytes."""

    header: Header
    size: int
    arrival: Arrival

    @property
    def outcome(self) -> Outcome | None:
        """What became of it; None until it is indexed."""
        return self.arrival.outcome


@dataclass(frozen=True, slots=True)
class Way:
    """How instances become durable: `submit` returns when some are, `take_name` gives a file a name before.

    `sync`: large objects are synced one by one, before they are submitted.
    """

    submit: Callable[[Sequence[Arrival]], None]
    take_name: Callable[[], str]
    sync: bool


class InstanceReceiver:
    """An instance while it is received. End it with `keep` or `discard`."""

    def __init__(
        self,
        objects: ObjectStore,
        way: Way,
        origin: Origin,
        command: tuple[str, str],
        transfer_syntax: str,
        limit: int | None = None,
    ) -> None:
        """Begin. `limit` is the peer's own one, in bytes. Raises NotKept (no room), InvalidUID."""
        self._objects = objects
        self.way = way
        self._origin = origin
        self._command = (
            check_uid("Affected SOP Class UID", command[0]),
            check_uid("Affected SOP Instance UID", command[1]),
        )
        self._transfer_syntax = transfer_syntax
        self._object = ObjectWriter(objects, *self._command, transfer_syntax, way.take_name, limit)
        # The writer's method itself, since it is called for every few kilobytes. Raises NotKept, TooLarge.
        self.write = self._object.write

    @property
    def size(self) -> int:
        """Bytes of the data set so far."""
        return self._object.data_set_size

    @property
    def is_small(self) -> bool:
        """Whether all of it is in memory."""
        return self._object.is_small

    def keep(self) -> Kept:
        """Make the instance durable, and return when it is.

        Raises Unreadable, InvalidUID, Disagreement, NotKept or DatabaseFault; then nothing is left behind.
        """
        (kept,) = keep_all([self])
        if isinstance(kept, Exception):
            raise kept
        return kept

    def finish(self) -> Arrival | Exception:
        """Read the header and make a large object's data durable; return what is left to do, or why not."""
        try:
            return self._arrival(self._header())
        except Exception as error:  # noqa: BLE001  it is the answer
            return error

    def _arrival(self, header: Header) -> Arrival:
        incoming = self._object
        incoming.finish(sync=self.way.sync)
        try:
            path = self._objects.reserve(incoming.size, incoming.path)
        except OSError as error:
            raise NotKept(f"objects: {error.strerror}") from error
        stored = StoredObject(
            header,
            self._origin,
            self._transfer_syntax,
            path,
            incoming.size,
            incoming.sha1.hex(),
            time.time_ns() // 1_000_000,
        )
        return Arrival(stored, incoming.content, incoming.path)

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


def keep_all(receivers: Sequence[InstanceReceiver]) -> list[Kept | Exception]:
    """Make instances durable by one sync, in their order; return what came of each when all are.

    Of one that is not kept nothing is left behind.
    """
    finished = [receiver.finish() for receiver in receivers]
    for way in dict.fromkeys(receiver.way for receiver in receivers):
        pairs = zip(receivers, finished, strict=True)
        if some := [one for receiver, one in pairs if receiver.way is way and isinstance(one, Arrival)]:
            way.submit(some)
    return [_result(receiver, one) for receiver, one in zip(receivers, finished, strict=True)]


def _result(receiver: InstanceReceiver, finished: Arrival | Exception) -> Kept | Exception:
    if isinstance(finished, Arrival):
        if finished.error is None:
            return Kept(finished.stored.header, finished.stored.size, finished)
        finished = finished.error
    receiver.discard()
    return finished
