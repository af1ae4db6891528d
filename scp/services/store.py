"""The Storage Service Class as SCP (PS3.4 Annex B): one C-STORE from its command set to its response."""

from collections.abc import Callable
from time import perf_counter

from index import Index, IndexFault, InstanceReceiver, Kept
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
    ) -> "StoreOperation":
        """Begin a C-STORE; SOP Class and syntax are those of the presentation context. Never raises."""
        return StoreOperation(
            self._index, self._metrics, record, command, sop_class_uid, transfer_syntax, send
        )


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
    ) -> None:
        self._started = perf_counter()
        self._metrics = metrics
        self._record = record
        self._command = command
        self._transfer_syntax = transfer_syntax
        self._send = send
        self._fault: Exception | None = None
        self._receiver: InstanceReceiver | None = None
        info = record.info
        try:
            self._receiver = index.receive(
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
        if self._receiver is not None and self._fault is None:
            try:
                self._receiver.write(fragment)
            except Exception as error:  # noqa: BLE001  answered by end
                self._fault = error
                self._receiver.discard()

    def end(self) -> None:
        """Keep the instance, which blocks until it is durable, and answer."""
        status, comment = SUCCESS, ""
        try:
            self._log_kept(self._keep())
        except Exception as error:  # noqa: BLE001  becomes a status
            status, comment = self._failed(error), error_comment(error)
        self._record.count("stores", self._receiver.size if self._receiver is not None else 0)
        self._send(encode_response(self._command, status, comment))

    def discard(self, reason: str) -> None:
        """Leave nothing behind: the rest of the data set will not come (abort, connection lost)."""
        if self._receiver is not None:
            self._receiver.discard()
        self._record.log.warning(
            "store_discarded", sop_instance_uid=self._command.sop_instance_uid, reason=reason
        )

    def _keep(self) -> Kept:
        if self._receiver is None or self._fault is not None:
            raise self._fault or IndexFault("no data set was received")
        return self._receiver.keep()

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
