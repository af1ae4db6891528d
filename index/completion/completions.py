"""Studies that are complete: told once, in the change feed, to peers, and to whom the daemon lets observe.

A row of the table `completion` decides: whoever fills it in tells, also of several nodes.
"""

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from peewee import SQL, Query

from index.completion.evidence import Facts, Reason, facts_of, is_complete_by_mpps
from index.database.connection import Database
from index.database.mark_changed import now
from index.database.statements import Placeholder
from index.database.tables import Change, CompletionRow, Instance, Resource, Series, Study
from index.errors import DatabaseFault, NotKept
from index.forwarding.notifications import Notifications
from index.hooks import Observer
from index.settings import PublishSettings
from index.storage.object_store import ObjectStore
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# Of an entry of the change feed.
COMPLETE = "complete"
# How long a study whose order is completed must have been quiet, in seconds: a RIS may say so while images
# are still being sent, and a sender that sends pauses for less.
ORDER_QUIET_SECONDS = 30.0
# A step in progress keeps its study from being complete for so long after it last changed, in seconds: some
# modalities never end their steps.
STEP_SECONDS = 86400.0
# How exact the time is at which a quiet study is found, as a part of the quiet time, and at most, in seconds.
EXACTNESS, LEAST_EXACT_SECONDS = 0.01, 5.0
# How soon it is seen that another node has left a study behind, in seconds.
LOOK_SECONDS = 60.0
# Rows that are read at once; values of one query, far below the 32,766 that SQLite binds.
PAGE = 200


@dataclass(frozen=True, slots=True)
class Completion:
    """A study that was said to be complete: when, in ms since 1970, and how many instances came later."""

    study_uid: str
    told: int
    reason: str
    instances: int
    later: int


def note_earlier(database: Database) -> None:
    """Note that every study was here before, in a write transaction: what was told of it is not known."""
    columns = Study.uid, Study.last_received, SQL(f"'{Reason.EARLIER}'"), Study.instance_count
    row = CompletionRow
    database.execute(
        row.insert_from(Study.select(*columns), [row.study_uid, row.told, row.reason, row.instances])
    )


class Completions:
    """Tells that studies are complete. Safe to use from many threads."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        settings: PublishSettings,
        observer: Observer | None = None,
        workers: Supervisor | None = None,
    ) -> None:
        self._database = database
        # What peers are told of it.
        self.notifications = Notifications(database, objects)
        self._quiet = settings.quiet or math.inf
        self._observer = observer or Observer()
        self._changed = threading.Condition()
        # When the first study is due that this process knows of, in ms since 1970.
        self._first_due = math.inf
        self._worker = (workers or Supervisor()).add("completion", self._run, depends=True)

    def start(self) -> None:
        """Find studies that have been quiet for long enough, from now on."""
        self._worker.start()

    def stop(self) -> None:
        """End that."""
        with self._changed:
            self._worker.stopping.set()
            self._changed.notify()
        self._worker.stop()

    def note(self, study_uid: str, instances: int) -> None:
        """Note that a study is being published with so many instances, in the transaction that does it."""
        facts, mine = facts_of(self._database, study_uid), CompletionRow.study_uid == study_uid
        if facts is None or not instances:
            if facts and facts.told is not None:
                self._database.execute(CompletionRow.delete().where(mine))
        elif not facts.told:
            self._put(study_uid, due=self._due(facts), covered=facts.covered)
        elif instances - facts.instances > facts.later and facts.reason != Reason.EARLIER:
            later = instances - facts.instances
            self._database.execute(CompletionRow.update(later=later).where(mine))
            if not facts.later:
                log.info("study_reopened", study_uid=study_uid, reason=facts.reason, instances=instances)
                self._observer.study_reopened(facts.reason)

    def _put(self, study_uid: str, *, due: int | None, covered: int) -> None:
        self._database.prepared(_put_row).run(study_uid=study_uid, due=due, covered=covered)

    def _due(self, facts: Facts) -> int | None:
        """Return when a study has been quiet for long enough if nothing comes from now on; None: never.

        Of its instances and steps: what an order or a merge of patients changes is no sign that more comes.
        """
        quiet = min(self._quiet, ORDER_QUIET_SECONDS) if facts.is_complete_by_order else self._quiet
        if quiet == math.inf:
            return None
        return int(max(facts.received, facts.stepped or 0) + quiet * 1000)

    def published(self, study_uid: str) -> None:
        """Tell that a study is complete, if it is: it has just been published. Does not raise."""
        try:
            facts = facts_of(self._database, study_uid)
            if facts and facts.told == 0:
                self._wake(math.inf if facts.due is None else facts.due)
                if facts.in_progress is None:
                    self._tell(study_uid, self._evidence(study_uid, facts))
        except (NotKept, DatabaseFault) as error:  # it is told when it has been quiet
            log.warning("completion_not_told", study_uid=study_uid, reason=str(error))

    def _evidence(self, study_uid: str, facts: Facts) -> Reason | None:
        """Return why a study is complete at once; None where that is not known."""
        if facts.stepped is not None and is_complete_by_mpps(self._database, study_uid):
            return Reason.MPPS
        return Reason.COMMITMENT if facts.covered >= facts.instance_count else None

    def committed(self, uids: Sequence[str]) -> None:
        """Take in that a storage commitment for these instances, and no others, was reported. Raises NotKept.

        It covers a study where it names every instance that the study has.
        """
        counts: dict[str, int] = {}
        for start in range(0, len(uids), PAGE):
            query = Instance.select(Study.uid).join(Series).join(Study)
            for (study,) in self._database.rows(query.where(Instance.uid.in_(uids[start : start + PAGE]))):
                counts[study] = counts.get(study, 0) + 1
        for study, count in counts.items():
            with self._database.writing(durable=False):
                if facts := facts_of(self._database, study):
                    self._put(study, due=self._due(facts), covered=count)
            self.published(study)

    def find_quiet(self) -> float:
        """Tell which studies have been quiet for long enough; return when the next is due. Raises NotKept.

        In ms since 1970; infinite where none is.
        """
        row = CompletionRow
        waiting = row.select(row.study_uid).where(row.told == 0, row.due <= now()).order_by(row.due)
        while rows := self._database.rows(waiting.limit(PAGE)):
            for (study_uid,) in rows:
                self._worker.beat()
                self._tell_quiet(study_uid)
        # Not the minimum of all: SQLite would read every row.
        first = row.select(row.due).where(row.told == 0, row.due.is_null(False)).order_by(row.due)
        return next((float(due) for (due,) in self._database.rows(first.limit(1))), math.inf)

    def _tell_quiet(self, study_uid: str) -> None:
        if (facts := facts_of(self._database, study_uid)) is None:
            self._postpone(study_uid, None)
            return
        reason = self._evidence(study_uid, facts) or (Reason.ORDER if facts.is_complete_by_order else None)
        abandoned = None if facts.in_progress is None else int(facts.in_progress + STEP_SECONDS * 1000)
        if abandoned is not None and abandoned > now():
            self._postpone(study_uid, abandoned)
        elif reason is None and self._quiet == math.inf:
            self._postpone(study_uid, None)
        elif not self._tell(study_uid, reason or Reason.QUIET):
            # It waits for its publication, which sets the time anew.
            self._postpone(study_uid, now() + int(LOOK_SECONDS * 1000))

    def _postpone(self, study_uid: str, due: int | None) -> None:
        with self._database.writing(durable=False):
            row = CompletionRow.update(due=due).where(CompletionRow.study_uid == study_uid)
            self._database.execute(row.where(CompletionRow.told == 0))

    def _tell(self, study_uid: str, reason: Reason | None) -> bool:
        """Tell that a study is complete; False where another has, or where it waits for its publication."""
        if reason is None:
            return False
        at, is_it = now(), (Study.uid == study_uid) & (Study.instance_count > 0)
        query = Study.select(Study.instance_count).where(is_it, Study.revision == Study.published)
        with self._database.writing():
            rows = self._database.rows(query)
            if not rows:
                return False
            ((instances,),) = rows
            told = CompletionRow.update(told=at, reason=reason, instances=instances)
            mine = (CompletionRow.study_uid == study_uid) & (CompletionRow.told == 0)
            if not self._database.execute(told.where(mine)):
                return False
            self._database.lock_feed()
            self._add_entries(study_uid, at, reason)
            peers = self.notifications.add(study_uid)
        log.info("study_complete", study_uid=study_uid, reason=reason.value, instances=instances)
        self._observer.study_complete(reason.value)
        if peers:
            self.notifications.on_added(peers)
        return True

    def _add_entries(self, study_uid: str, at: int, reason: Reason) -> None:
        """Add an entry to the feed for its ImagingStudy in each FHIR version."""
        resource = Resource
        query = resource.select(resource.id, resource.version).where(resource.name == study_uid)
        query = query.where(resource.type == "ImagingStudy", resource.deleted == 0).order_by(resource.id)
        for row, version in self._database.rows(query):
            entry = Change.insert(resource=row, version=version, kind=COMPLETE, changed=at, reason=reason)
            self._database.execute(entry)

    def told(self, study_uids: Iterable[str]) -> dict[str, Completion]:
        """Return which of these studies were said to be complete. Raises NotKept, DatabaseFault."""
        row = CompletionRow
        query = row.select(row.study_uid, row.told, row.reason, row.instances, row.later)
        rows = self._database.rows(query.where(row.study_uid.in_(list(study_uids)), row.told > 0))
        return {study_uid: Completion(study_uid, *others) for study_uid, *others in rows}

    def _wake(self, due: float) -> None:
        with self._changed:
            if due < self._first_due:
                self._first_due = due
                self._changed.notify()

    def _run(self) -> None:
        exactness = min(EXACTNESS * self._quiet, LEAST_EXACT_SECONDS)
        while not self._worker.wait(exactness):
            with self._changed:
                self._first_due = math.inf
            try:
                self._wake(self.find_quiet())
            except Exception as error:  # such as a full disk: the thread goes on
                log.exception("completion_failed")
                self._worker.failed(error)
                self._wake(now() + LEAST_EXACT_SECONDS * 1000)
            else:
                self._worker.done()
            self._wait()

    def _wait(self) -> None:
        """Wait until a study is due; where other nodes may leave one behind, not for long."""
        longest = math.inf if self._database.is_sqlite else time.monotonic() + LOOK_SECONDS
        with self._changed, self._worker.waiting():
            while not self._worker.stopping.is_set():
                seconds = min(self._first_due / 1000 - time.time(), longest - time.monotonic())
                if seconds <= 0:
                    return
                self._changed.wait(None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX))


def _put_row(p: Placeholder) -> Query:
    row, zero, none = CompletionRow, SQL("0"), SQL("''")
    values = {row.due: p("due"), row.covered: p("covered")}
    new = {row.study_uid: p("study_uid"), row.told: zero, row.reason: none, row.instances: zero}
    put = row.insert({**new, row.later: zero, **values})
    return put.on_conflict(conflict_target=[row.study_uid], update=values)
