"""The Storage Service Class as SCP (PS3.4 Annex B): one C-STORE from its command set to its response."""

from collections.abc import Callable
from time import perf_counter

from index import Index, IndexFault, InstanceReceiver, Kept, keep_all
from scp.observing.association_record import AssociationRecord
from scp.observing.metrics import Metrics
from scp.wire.command_set import Command, encode_response
from scp.wire.status import SUCCESS, error_comment, store_status


class StoreService:
    """Begins a StoreOperation for each C-STORE request. Shared by all associations."""

    def __init__(self, index: Index, metrics: Metrics | None = None) -> None:
        self._index = index
        self._metrics = metrics or Metrics()

    def begin(
        self,
        record: AssociationRecord,
        command: Command,
        sop_class_uid: str,
        transfer_syntax: str,
        send: Callable[[bytes], None],
        group: "StoreGroup",
    ) -> "StoreOperation":
        """Begin a C-STORE; SOP Class and syntax are those of the presentation context. Never raises.

        Its instance is kept, and answered, with its `group`.
        """
        return StoreOperation(
            self._index, self._metrics, record, command, sop_class_uid, transfer_syntax, send, group
        )


# Operations that a peer may have invoked without an answer (PS3.7 Section D.3.3.3): so many objects of
# 64 kB are in memory at most. More of them share one sync, and the line's delay.
MAX_OPERATIONS = 16


class StoreGroup:
    """C-STORE operations of one association that are complete, and are kept and answered together.

    A sender may send the next object before it has our answer, by an asynchronous operations window or
    without one. While more has arrived already, small objects wait for it. Large ones, which hold an open
    file, do not. `flush` is called before the thread waits for the peer.
    """

    def __init__(self, has_more: Callable[[], bool]) -> None:
        self._has_more = has_more
        self._operations: list[StoreOperation] = []

    def add(self, operation: "StoreOperation") -> None:
        """Take an operation that is complete."""
        self._operations.append(operation)
        is_large = operation.receiver is not None and not operation.receiver.is_small
        if is_large or len(self._operations) >= MAX_OPERATIONS or not self._has_more():
            self.flush()

    def flush(self) -> None:
        """Keep the instances, which blocks until they are durable, and answer all in their order."""
        operations, self._operations = self._operations, []
        receivers = [operation.receiver for operation in operations if operation.receiver is not None]
        if operations:
            kept = iter(keep_all(receivers))
            for operation in operations:
                operation.answer(None if operation.receiver is None else next(kept))


class StoreOperation:
    """One C-STORE. Its data set goes to the index as it comes. No call raises.

    After a fault the rest of the data set is dropped, and `end` answers the fault.
    """

    def __init__(
        self,
        index: Index,
        metrics: Metrics,
        record: AssociationRecord,
        command: Command,
        sop_class_uid: str,
        transfer_syntax: str,
        send: Callable[[bytes], None],
        group: StoreGroup,
    ) -> None:
        self._started = perf_counter()
        self._metrics = metrics
        self._record = record
        self._command = command
        self._transfer_syntax = transfer_syntax
        self._send = send
        self._group = group
        self._size = 0
        self._fault: Exception | None = None
        self.receiver: InstanceReceiver | None = None
        info = record.info
        try:
            self.receiver = index.receive(
                info.origin,
                sop_class_uid,
                command.sop_instance_uid,
                transfer_syntax,
                limit=info.object_size,
            )
        except Exception as error:  # noqa: BLE001  answered by end
            self._fault = error

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the data set's next bytes. They are copied or written before this returns."""
        if self.receiver is not None:
            try:
                self.receiver.write(fragment)
            except Exception as error:  # noqa: BLE001  answered by end
                self._fault = error
                self._size = self.receiver.size
                self.receiver.discard()
                self.receiver = None

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
        status = store_status(fault)
        self._metrics.store_failed(self._record.info.calling_aet, f"{status:04X}")
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
