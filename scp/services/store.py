"""The Storage Service Class as SCP (PS3.4 Annex B): one C-STORE from its command set to its status."""

from dataclasses import dataclass
from time import perf_counter

from index import Index, IndexFault, InstanceReceiver, Kept
from scp.observing.association_info import AssociationInfo
from scp.observing.metrics import Metrics
from scp.wire.status import SUCCESS, comment, store_status


@dataclass(frozen=True, slots=True)
class Answer:
    """What a C-STORE-RSP says: its status and, for failures, an ErrorComment of at most 64 characters.

    `size` is what was taken of the data set, in bytes.
    """

    status: int
    comment: str = ""
    size: int = 0


class StoreService:
    """Makes a Reception for each C-STORE request. Shared by all associations."""

    def __init__(self, index: Index, metrics: Metrics | None = None) -> None:
        self._index = index
        self._metrics = metrics or Metrics()

    def begin(
        self, info: AssociationInfo, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str
    ) -> "Reception":
        """Start to receive one instance; UIDs as in the command set. Never raises."""
        return Reception(self._index, self._metrics, info, (sop_class_uid, sop_instance_uid), transfer_syntax)


class Reception:
    """One instance on its way in. Exactly one of `finish` and `discard` ends it; none of its calls raises.

    A fault is remembered, what still comes is dropped, and `finish` answers it.
    """

    def __init__(
        self,
        index: Index,
        metrics: Metrics,
        info: AssociationInfo,
        uids: tuple[str, str],
        transfer_syntax: str,
    ) -> None:
        self._started = perf_counter()
        self._metrics = metrics
        self._info = info
        self._uid = uids[1]
        self._transfer_syntax = transfer_syntax
        self._fault: Exception | None = None
        self._receiver: InstanceReceiver | None = None
        try:
            self._receiver = index.receive(info.origin, *uids, transfer_syntax, limit=info.object_size)
        except Exception as error:  # noqa: BLE001  answered by finish
            self._fault = error

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the data set's next bytes. They are copied or written before this returns."""
        if self._receiver is not None and self._fault is None:
            try:
                self._receiver.write(fragment)
            except Exception as error:  # noqa: BLE001  answered by finish
                self._fault = error
                self._receiver.discard()

    def finish(self) -> Answer:
        """The data set is whole: keep it, and return the answer. Blocks until it is durable."""
        if self._receiver is not None and self._fault is None:
            try:
                return self._kept(self._receiver.keep())
            except Exception as error:  # noqa: BLE001  becomes a status
                self._fault = error
        return self._failed(self._fault or IndexFault("no data set was received"))

    def discard(self, reason: str) -> None:
        """The data set will never be whole (abort, connection lost): leave nothing behind."""
        if self._receiver is not None:
            self._receiver.discard()
        self._info.log.warning("store_discarded", sop_instance_uid=self._uid, reason=reason)

    @property
    def _size(self) -> int:
        return self._receiver.size if self._receiver is not None else 0

    def _kept(self, kept: Kept) -> Answer:
        header = kept.header
        seconds = perf_counter() - self._started
        self._metrics.stored(self._info.calling_aet, kept.size, seconds)
        self._info.log.info(
            "store",
            status="0000",
            study_uid=header.study_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax=self._transfer_syntax,
            bytes=kept.size,
            seconds=round(seconds, 4),
        )
        if header.doubts:
            self._metrics.doubted(self._info.calling_aet)
            self._info.log.warning("doubts", sop_instance_uid=header.sop_instance_uid, doubts=header.doubts)
        return Answer(SUCCESS, size=self._size)

    def _failed(self, fault: Exception) -> Answer:
        status = store_status(fault)
        self._metrics.store_failed(self._info.calling_aet, f"{status:04X}")
        self._info.log.error(
            "store",
            status=f"{status:04X}",
            reason=str(fault),
            sop_instance_uid=self._uid,
            transfer_syntax=self._transfer_syntax,
            # A fault of our own is for us to mend: with its traceback.
            exc_info=None if isinstance(fault, IndexFault) else fault,
        )
        return Answer(status, comment(fault), self._size)
