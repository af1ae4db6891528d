"""An upstream worklist SCP, queried by C-FIND on a schedule: for a RIS that has no other interface."""

import datetime as dt
from collections.abc import Callable
from time import perf_counter

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from index import Index, TakenOver, UpstreamSettings, everything, take_over
from scp.association.client import Unreachable, request_association
from scp.services.worklist import WORKLIST
from scp.settings.sections import Configuration
from scp.wire.status import PENDING, PENDING_WITHOUT_SOME_KEYS, SUCCESS

log = structlog.get_logger("scp")

# How long a stopping daemon waits for the answer that is being read, in seconds.
STOP_SECONDS = 5.0
# The most items of one answer: they are held in memory.
MAX_ITEMS = 100_000
_DATE = "ScheduledProcedureStepStartDate"


class UpstreamWorklist:
    """Copies the orders of an upstream worklist, and withdraws those that it no longer has.

    `configuration` returns the one in force, which a reload changes; `settings` stay.
    """

    def __init__(
        self, index: Index, settings: UpstreamSettings, configuration: Callable[[], Configuration]
    ) -> None:
        self._index = index
        self._settings = settings
        self._configuration = configuration
        self._worker = index.workers.add("worklist-upstream", self._run, depends=True)
        self._stopping = self._worker.stopping

    def start(self) -> None:
        """Start the thread that queries."""
        self._worker.start()

    def stop(self) -> None:
        """Stop it."""
        self._worker.stop(STOP_SECONDS)

    def _run(self) -> None:
        turns = self._index.orders.upstream_turns(self._settings.interval)
        while not self._stopping.is_set():
            seconds = self._settings.interval
            try:
                with turns.next(self._settings.peer.strip()) as turn:
                    if turn:
                        self.query()
            except Unreachable as error:
                log.warning("upstream_failed", reason=str(error))
                self._worker.failed(error)
            except Exception as error:  # such as a full disk or an invalid answer: the thread goes on
                log.exception("upstream_failed")
                self._worker.failed(error)
            else:
                self._worker.done()
                seconds = turns.pause
            self._worker.wait(seconds)

    def query(self) -> TakenOver:
        """Query once, and take over the answer. Raises Unreachable, NotKept, DatabaseFault."""
        started = perf_counter()
        peer = self._settings.peer.strip()
        with request_association(self._configuration(), peer, WORKLIST) as association:
            answers, status = self._answers(association)
        taken = take_over(self._index.orders.store, peer, answers, complete=status == SUCCESS)
        log.info(
            "upstream_worklist",
            peer=peer,
            status="none" if status is None else f"{status:04X}",
            items=taken.items,
            changed=taken.changed,
            withdrawn=taken.withdrawn,
            seconds=round(perf_counter() - started, 3),
        )
        for reason in taken.bad:
            log.warning("upstream_item_passed_over", peer=peer, reason=reason)
        return taken

    def _answers(self, association: Association) -> tuple[list[Dataset], int | None]:
        """Return the items and the final status; None: the answer was not complete."""
        answers: list[Dataset] = []
        final = None
        for status, identifier in association.send_c_find(self._identifier(), WORKLIST):
            self._worker.beat()
            final = status.get("Status")
            if final in (PENDING, PENDING_WITHOUT_SOME_KEYS):
                # None: it could not be decoded. An empty item counts as bad, and then no order is withdrawn.
                answers.append(Dataset() if identifier is None else identifier)
            if self._stopping.is_set() or len(answers) >= MAX_ITEMS:
                association.abort()
                return answers, None
        return answers, final

    def _identifier(self) -> Dataset:
        settings = self._settings
        wanted = dict(settings.query)
        if _DATE not in wanted:
            today = dt.datetime.now().astimezone().date()
            first = today - dt.timedelta(days=settings.days_before)
            last = today + dt.timedelta(days=settings.days_after)
            wanted[_DATE] = f"{first:%Y%m%d}-{last:%Y%m%d}"
        return everything(wanted)
