"""C-FIND as SCP, for the worklist and for the Query/Retrieve information models (PS3.7 Section 9.1.2)."""

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, NamedTuple, Protocol, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.events import Event

from index import BadIdentifier, Index
from scp.association.events import Handler, association_of, record_of
from scp.observing.association_info import AssociationInfo
from scp.observing.audit import events
from scp.observing.metrics import Metrics
from scp.services.query import MODELS, study_query
from scp.services.worklist import WORKLIST, worklist_query
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

Response = tuple[Dataset | int, Dataset | None]


class Query(Iterable[Dataset | None], Protocol):
    """A query of the index. It yields answers, and None where it has read on without one."""

    unsupported: tuple[str, ...]
    is_cut_short: bool


MakeQuery = Callable[[Index, Configuration, Event], Query]
_MAKERS: dict[str, MakeQuery] = {"worklist": worklist_query, "query": study_query}
# Log events, by service, and those of a failure of ours.
_EVENTS = {"worklist": "worklist_query", "query": "query"}
_FAILURES = {"worklist_query": "worklist_failed", "query": "query_failed"}


class FindService:
    """Answers queries. `configuration` returns the one in force, which a reload changes."""

    SERVICES = {WORKLIST: "worklist", **dict.fromkeys(MODELS, "query")}  # noqa: RUF012  a constant

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
        service = self.SERVICES[str(cast("C_FIND", event.request).AffectedSOPClassUID)]
        tally = _Tally(record.info, _EVENTS[service])
        try:
            yield from self._answers(event, _MAKERS[service], tally)
        finally:
            tally.log()
            self._audit(event, tally)
            self._metrics.operation_answered(service, f"{tally.status:04X}")

    def _audit(self, event: Event, tally: "_Tally") -> None:
        """Tell the audit trail of a query, with its identifier as it came."""
        if (audit := self._metrics.audit) is None:
            return
        request = cast("C_FIND", event.request)
        content = request.Identifier.getvalue() if request.Identifier else b""
        uid, syntax = str(request.AffectedSOPClassUID), str(event.context.transfer_syntax)
        asked = events.dicom_query(uid, content, syntax)
        outcome = events.outcome_of(failed=tally.failed)
        asker = events.sender_of(tally.info)
        audit.put(events.query(audit.source, asker, asked, outcome, tally.reason))

    def _answers(self, event: Event, make_query: MakeQuery, tally: "_Tally") -> Iterator[Response]:
        try:
            query = make_query(self._index, self._configuration(), event)
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
                if dataset is None:
                    association_of(event).read_available()
                if event.is_cancelled:
                    yield tally.end(CANCELLED), None
                    return
                if dataset is not None:
                    tally.matches += 1
                    yield pending, dataset
        except Exception as error:
            tally.info.log.exception(_FAILURES[tally.name])
            yield tally.end(OUT_OF_RESOURCES, reason_for_peer(error)), None
            return
        if query.is_cut_short:
            # Tables C.4-1 and K.4-1 have no warning for a limit, unlike that of inventories (B001).
            yield (
                tally.end(OUT_OF_RESOURCES, f"more than {tally.matches} may match; ask for less"),
                None,
            )


class _Ending(NamedTuple):
    status: int
    reason: str = ""


class _Tally:
    """The outcome of one query and its log event, which has no patient data."""

    def __init__(self, info: AssociationInfo, name: str) -> None:
        self.info = info
        self.name = name
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

    @property
    def reason(self) -> str:
        """Why it failed, or empty."""
        return self._ending.reason

    @property
    def failed(self) -> bool:
        """Whether it was not answered."""
        return self._ending.status not in (SUCCESS, CANCELLED)

    def log(self) -> None:
        """Log the query."""
        rest: dict[str, Any] = {"reason": self._ending.reason} if self._ending.reason else {}
        if self.unsupported:
            rest["unsupported_keys"] = self.unsupported
        (self.info.log.warning if self.failed else self.info.log.info)(
            self.name,
            status=f"{self._ending.status:04X}",
            matches=self.matches,
            seconds=round(perf_counter() - self._started, 4),
            **rest,
        )
