"""The Modality Worklist Information Model - FIND as SCP (PS3.4 Annex K)."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event

from index import BadIdentifier, Index, WorklistQuery
from scp.association.events import Handler, record_of
from scp.observing.association_info import AssociationInfo
from scp.observing.metrics import Metrics
from scp.settings.sections import Configuration
from scp.wire.status import (
    CANCELLED,
    IDENTIFIER_DOES_NOT_MATCH,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_WITHOUT_SOME_KEYS,
    SUCCESS,
    UNABLE_TO_PROCESS,
    error_comment,
    reason_for_peer,
)

WORKLIST = "1.2.840.10008.5.1.4.31"

Response = tuple[Dataset | int, Dataset | None]


class WorklistService:
    """Answers worklist queries. `configuration` returns the one in force, which a reload changes."""

    SERVICES = {WORKLIST: "worklist"}  # noqa: RUF012  a constant

    def __init__(self, index: Index, configuration: Callable[[], Configuration], metrics: Metrics) -> None:
        self._index = index
        self._configuration = configuration
        self._metrics = metrics

    @property
    def handlers(self) -> list[Handler]:
        """The handlers that the listener binds."""
        return [(evt.EVT_C_FIND, self._on_find)]

    def _on_find(self, event: Event) -> Iterator[Response]:
        record = record_of(event)
        record.count("queries")
        tally = _Tally(record.info)
        try:
            yield from self._answers(event, tally)
        finally:
            tally.log()
            self._metrics.operation_answered("worklist", f"{tally.status:04X}")

    def _answers(self, event: Event, tally: "_Tally") -> Iterator[Response]:
        try:
            query = self._query(event, tally.info)
        except BadIdentifier as error:
            yield tally.end(IDENTIFIER_DOES_NOT_MATCH, str(error)), None
            return
        except Exception as error:  # noqa: BLE001  pynetdicom raises whatever its decoder meets
            yield tally.end(UNABLE_TO_PROCESS, f"identifier: {type(error).__name__}"), None
            return
        pending = PENDING_WITHOUT_SOME_KEYS if query.unsupported else PENDING
        tally.unsupported = query.unsupported
        try:
            for dataset in query:
                if event.is_cancelled:
                    yield tally.end(CANCELLED), None
                    return
                tally.matches += 1
                yield pending, dataset
        except Exception as error:
            tally.info.log.exception("worklist_failed")
            yield tally.end(OUT_OF_RESOURCES, reason_for_peer(error)), None
            return
        if query.is_cut_short:
            # Table K.4-1 has no warning for a limit, unlike that of inventories (B001).
            yield (
                tally.end(OUT_OF_RESOURCES, f"more than {tally.matches} may match; ask for less"),
                None,
            )

    def _query(self, event: Event, info: AssociationInfo) -> WorklistQuery:
        peer = self._configuration().find_peer(info.calling_aet)
        charset = peer.charset if peer else None
        ignore_accents = bool(peer and peer.ignore_accents)
        return self._index.worklist(
            event.identifier, info.calling_aet, charset, ignore_accents=ignore_accents
        )


class _Ending(NamedTuple):
    status: int
    reason: str = ""


class _Tally:
    """The outcome of one query and its log event, which has no patient data."""

    def __init__(self, info: AssociationInfo) -> None:
        self.info = info
        self.matches = 0
        self.unsupported: tuple[str, ...] = ()
        self._started = perf_counter()
        self._ending = _Ending(SUCCESS)

    def end(self, status: int, reason: str = "") -> Dataset:
        """Set how the query ends; return the status of the final response."""
        self._ending = _Ending(status, reason)
        made = Dataset()
        made.Status = status
        if reason:
            made.ErrorComment = error_comment(reason)
        return made

    @property
    def status(self) -> int:
        """The final status."""
        return self._ending.status

    def log(self) -> None:
        """Log the query."""
        rest: dict[str, Any] = {"reason": self._ending.reason} if self._ending.reason else {}
        if self.unsupported:
            rest["unsupported_keys"] = self.unsupported
        failed = self._ending.status not in (SUCCESS, CANCELLED)
        (self.info.log.warning if failed else self.info.log.info)(
            "worklist_query",
            status=f"{self._ending.status:04X}",
            matches=self.matches,
            seconds=round(perf_counter() - self._started, 4),
            **rest,
        )
