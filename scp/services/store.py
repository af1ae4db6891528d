"""The Storage Service Class as SCP (PS3.4 Annex B): one C-STORE from its command set to its status."""

from dataclasses import dataclass
from time import perf_counter

from index import Incoming, Index, IndexFault, Kept, Outcome, TooLarge
from scp.observing.association_info import Link
from scp.observing.metrics import Metrics
from scp.wire.status import SUCCESS, comment, store_status


@dataclass(frozen=True, slots=True)
class Answer:
    """What a C-STORE-RSP says: its status and, for failures, an ErrorComment of at most 64 characters."""

    status: int
    comment: str = ""


class StoreService:
    """Makes a Reception for each C-STORE request. Shared by all associations."""

    def __init__(self, index: Index, metrics: Metrics | None = None) -> None:
        self._index = index
        self._metrics = metrics or Metrics()

    def begin(
        self, link: Link, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str
    ) -> "Reception":
        """Start to receive one instance; UIDs as in the command set. Never raises."""
        return Reception(self._index, self._metrics, link, (sop_class_uid, sop_instance_uid), transfer_syntax)


class Reception:
    """One instance on its way in. Exactly one of `finish` and `discard` ends it; none of its calls raises.

    A fault is remembered, what still comes is dropped, and `finish` answers it.
    """

    def __init__(
        self,
        index: Index,
        metrics: Metrics,
        link: Link,
        uids: tuple[str, str],
        transfer_syntax: str,
    ) -> None:
        self._started = perf_counter()
        self._metrics = metrics
        self._link = link
        self._uid = uids[1]
        self._transfer_syntax = transfer_syntax
        self._left = link.object_size
        self._fault: Exception | None = None
        self._incoming: Incoming | None = None
        try:
            self._incoming = index.receive(link.origin, *uids, transfer_syntax)
        except Exception as error:  # noqa: BLE001  answered by finish
            self._fault = error

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the data set's next bytes. They are copied or written before this returns."""
        if self._incoming is not None:
            try:
                self._count(len(fragment))
                self._incoming.write(fragment)
            except Exception as error:  # noqa: BLE001  answered by finish
                self._fault = error
                self._incoming.discard()
                self._incoming = None

    def finish(self) -> Answer:
        """The data set is whole: keep it, and return the answer. Blocks until it is durable."""
        if self._incoming is not None:
            try:
                return self._kept(self._incoming.keep())
            except Exception as error:  # noqa: BLE001  becomes a status
                self._fault = error
        return self._failed(self._fault or IndexFault("reception ended twice"))

    def discard(self, reason: str) -> None:
        """The data set will never be whole (abort, connection lost): leave nothing behind."""
        if self._incoming is not None:
            self._incoming.discard()
        self._link.log.warning("store_discarded", sop_instance_uid=self._uid, reason=reason)

    def _count(self, size: int) -> None:
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise TooLarge(f"larger than the peer's limit of {self._link.object_size} bytes")

    def _kept(self, kept: Kept) -> Answer:
        header = kept.header
        seconds = perf_counter() - self._started
        self._metrics.stored(self._link.calling_aet, str(kept.outcome), kept.size, seconds)
        say = self._link.log.warning if kept.outcome is Outcome.CONFLICT else self._link.log.info
        say(
            "store",
            status="0000",
            outcome=str(kept.outcome),
            study_uid=header.study_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax=self._transfer_syntax,
            bytes=kept.size,
            seconds=round(seconds, 4),
        )
        if header.doubts:
            self._metrics.doubted(self._link.calling_aet)
            self._link.log.warning("doubts", sop_instance_uid=header.sop_instance_uid, doubts=header.doubts)
        return Answer(SUCCESS)

    def _failed(self, fault: Exception) -> Answer:
        status = store_status(fault)
        self._metrics.store_failed(self._link.calling_aet, f"{status:04X}")
        self._link.log.error(
            "store",
            status=f"{status:04X}",
            reason=str(fault),
            sop_instance_uid=self._uid,
            transfer_syntax=self._transfer_syntax,
            # A fault of our own is for us to mend: with its traceback.
            exc_info=None if isinstance(fault, IndexFault) else fault,
        )
        return Answer(status, comment(fault))
