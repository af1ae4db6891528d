"""The Storage Service Class as SCP (PS3.4 Annex B): one C-STORE from its command set to its response."""

from collections.abc import Callable
from itertools import repeat
from time import perf_counter

from index import Index, IndexFault, InstanceReceiver, Kept, keep_all
from scp.observing.association_record import AssociationRecord
from scp.observing.metrics import Metrics
from scp.wire.command_set import Command, encode_response
from scp.wire.status import C_STORE, SUCCESS, error_comment, status_of

# Operations that a peer may have invoked without an answer (PS3.7 Section D.3.3.3). Together they share one
# sync, and the delay of the line.
MAX_OPERATIONS = 16
# The most bytes of complete data sets that one association holds in memory, besides the last one (64 kB).
MAX_WAITING = 256 * 1024


class StoreService:
    """Serves C-STORE requests. Shared by all associations."""

    def __init__(self, index: Index, metrics: Metrics | None = None) -> None:
        self.index = index
        self.metrics = metrics or Metrics()

    def group(self, record: AssociationRecord, has_more: Callable[[], bool]) -> "StoreGroup":
        """Return the C-STORE operations of an association. `has_more`: whether more has arrived already."""
        return StoreGroup(self, record, has_more)


class StoreGroup:
    """The C-STORE operations of one association. Complete ones are kept, and answered, together.

    A sender may send the next object before it has our answer, by an asynchronous operations window or
    without one. A complete small object waits while more has arrived already: one sync is enough for several.
    It does not wait for a large object. `flush` is to be called before the thread waits for the peer.
    """

    def __init__(
        self, service: StoreService, record: AssociationRecord, has_more: Callable[[], bool]
    ) -> None:
        self.service = service
        self.record = record
        self._has_more = has_more
        self._complete: list[StoreOperation] = []
        self._length = 0

    def begin(
        self, command: Command, sop_class_uid: str, transfer_syntax: str, send: Callable[[bytes], None]
    ) -> "StoreOperation":
        """Begin a C-STORE; SOP Class and syntax are those of the presentation context. Never raises."""
        return StoreOperation(self, command, sop_class_uid, transfer_syntax, send)

    def add(self, operation: "StoreOperation") -> None:
        """Take an operation that is complete."""
        self._complete.append(operation)
        self._length += operation.receiver.size if operation.receiver else 0
        is_full = len(self._complete) >= MAX_OPERATIONS or self._length >= MAX_WAITING
        if is_full or operation.is_long or not self._has_more():
            self.flush()

    def flush(self) -> None:
        """Keep the complete instances, which blocks until they are durable; answer all in their order."""
        if not self._complete:
            return
        operations, self._complete, self._length = self._complete, [], 0
        receivers = [operation.receiver for operation in operations if operation.receiver]
        try:
            results = iter(keep_all(receivers))
        except Exception as error:  # noqa: BLE001  a fault of our own is answered too
            for receiver in receivers:
                receiver.discard()
            results = repeat(error)
        for operation in operations:
            operation.answer(next(results) if operation.receiver else None)


class StoreOperation:
    """One C-STORE. Its data set goes to the index as it comes.

    After a fault the rest of the data set is dropped, and the fault is answered at the end.
    """

    def __init__(
        self,
        group: StoreGroup,
        command: Command,
        sop_class_uid: str,
        transfer_syntax: str,
        send: Callable[[bytes], None],
    ) -> None:
        self._started = perf_counter()
        self._group = group
        self._metrics = group.service.metrics
        self._record = group.record
        self._command = command
        self._transfer_syntax = transfer_syntax
        self._send = send
        self._size = 0
        self._fault: Exception | None = None
        self.receiver: InstanceReceiver | None = None
        info = group.record.info
        try:
            self.receiver = group.service.index.receive(
                info.origin,
                sop_class_uid,
                command.sop_instance_uid,
                transfer_syntax,
                limit=info.object_size,
            )
        except Exception as error:  # noqa: BLE001  answered at the end
            self._fault = error

    @property
    def is_long(self) -> bool:
        """Whether other operations are not to wait for its end: it is large, or its data set is dropped."""
        return self.receiver is None or not self.receiver.is_small

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the data set's next bytes. They are copied or written before this returns."""
        if self.receiver is not None:
            try:
                self.receiver.write(fragment)
            except Exception as error:  # noqa: BLE001  answered at the end
                self._fault = error
                self._size = self.receiver.size
                self.receiver.discard()
                self.receiver = None
        if self.is_long:
            self._group.flush()

    def end(self) -> None:
        """Have the instance kept and answered with its group."""
        self._group.add(self)

    def answer(self, kept: Kept | Exception | None) -> None:
        """Answer; `kept` is what came of the instance, None where it was not received."""
        status, comment = SUCCESS, ""
        if self.receiver is not None:
            self._size = self.receiver.size
        if isinstance(kept, Kept):
            self._log_kept(kept)
        else:
            fault = kept or self._fault or IndexFault("no data set was received")
            status, comment = self._failed(fault), error_comment(fault)
        self._record.count("stores", self._size)
        self._send(encode_response(self._command, status, comment))

    def discard(self, reason: str) -> None:
        """Leave nothing behind: the rest of the data set will not come (abort, connection lost)."""
        if self.receiver is not None:
            self.receiver.discard()
        self._record.log.warning(
            "store_discarded", sop_instance_uid=self._command.sop_instance_uid, reason=reason
        )

    def _log_kept(self, kept: Kept) -> None:
        header, log = kept.header, self._record.log
        calling_aet = self._record.info.calling_aet
        seconds = perf_counter() - self._started
        self._metrics.stored(calling_aet, kept.size, seconds)
        if audit := self._metrics.audit:
            self._record.received.add(kept)
            if self._record.received.is_full:
                audit.put_received(self._record)
        log.info(
            "store",
            status="0000",
            study_uid=header.study_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax=self._transfer_syntax,
            bytes=kept.size,
            seconds=round(seconds, 4),
        )
        if header.doubts:
            self._metrics.stored_with_doubts(calling_aet)
            log.warning("doubts", sop_instance_uid=header.sop_instance_uid, doubts=header.doubts)

    def _failed(self, fault: Exception) -> int:
        """Count and log a failure; return its status."""
        status = status_of(fault, C_STORE)
        info = self._record.info
        self._metrics.store_failed(info.calling_aet, f"{status:04X}", str(fault), info.address)
        self._record.log.error(
            "store",
            status=f"{status:04X}",
            reason=str(fault),
            sop_instance_uid=self._command.sop_instance_uid,
            transfer_syntax=self._transfer_syntax,
            # With its traceback, where it is a fault of our own.
            exc_info=None if isinstance(fault, IndexFault) else fault,
        )
        return status
