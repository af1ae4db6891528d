"""All targets of a configuration: started with the daemon, woken by the publisher."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from index.database.claims import HeldClaims, Work
from index.database.connection import Database
from index.database.tables import Study
from index.errors import IndexFault
from index.hooks import Observer
from index.publication.resources import Resources
from index.publication.targets.listing import TargetListing
from index.publication.targets.settings import TargetSettings
from index.supervisor import Supervisor

if TYPE_CHECKING:
    from index.publication.targets.checks.verification import TargetVerification
    from index.publication.targets.export import Exported
    from index.publication.targets.http.client import TargetClient
    from index.publication.targets.worker import TargetWorker


# How long a stop waits for what is being sent, and a reload, in seconds.
STOP_SECONDS, QUICK = 20.0, 1.0


@dataclass(frozen=True, eq=False)
class _Running:
    """What publishes to one target, and by which settings."""

    settings: TargetSettings
    worker: "TargetWorker"
    client: "TargetClient"


class Targets:
    """What is published to FHIR servers. Safe to use from many threads."""

    def __init__(
        self,
        database: Database,
        resources: Resources,
        settings: Sequence[TargetSettings],
        observer: Observer | None,
        workers: Supervisor,
    ) -> None:
        self._database = database
        self._resources = resources
        self.settings = settings
        self._observer = observer or Observer()
        self._workers = workers
        self._claims = HeldClaims(database.claims, Work.TARGET)
        self._is_started = False
        self._running: dict[str, _Running] = {}
        # Those that a reload has ended, while something is still being sent.
        self._lock = threading.Lock()
        self._ending: list[_Running] = []
        self.listing = TargetListing(database, lambda: [one.name for one in self.settings])

    def start(self) -> None:
        """Begin to publish to all of them."""
        self._is_started = True
        self.use(self.settings)

    def use(self, settings: Sequence[TargetSettings]) -> None:
        """From now on, publish to these. Those that stay as they were go on, and are tried at once."""
        self.settings = settings
        if not self._is_started:
            return
        wanted = {one.name: one for one in settings}
        self._end([name for name, one in self._running.items() if wanted.get(name) != one.settings], QUICK)
        running = dict(self._running)
        for one in running.values():
            one.worker.try_now()
        new = {one.name: self._new(one) for one in settings if one.name not in running}
        self._running = running | new
        for one in new.values():
            one.worker.start()

    def stop(self) -> None:
        """End; what targets do not have stays in the outbox."""
        self._is_started = False
        self._end(list(self._running), STOP_SECONDS)

    def _new(self, settings: TargetSettings) -> "_Running":
        # The HTTP library takes a tenth of a second to import.
        from index.publication.targets.delivery import Delivery
        from index.publication.targets.http.client import TargetClient
        from index.publication.targets.knowledge import Knowledge
        from index.publication.targets.outbox import TargetOutbox
        from index.publication.targets.worker import TargetWorker

        knowledge = Knowledge(self._database, self._resources, settings.name, settings.version)
        client = TargetClient(settings)
        worker = TargetWorker(
            self._database,
            settings,
            TargetOutbox(self._database, settings),
            knowledge,
            Delivery(settings, client, knowledge),
            self._observer,
            self._workers,
            self._is_mine,
        )
        return _Running(settings, worker, client)

    def _end(self, names: Sequence[str], seconds: float) -> None:
        """End what is published to these; what is being sent may take so long, or goes on to its end."""
        self._ending += [self._running[name] for name in names]
        self._running = {name: one for name, one in self._running.items() if name not in names}
        for one in self._ending:
            one.worker.stopping()
        for one in self._ending:
            one.worker.stop(seconds)
        self._let_go()

    def _let_go(self) -> None:
        """Let go of what has ended."""
        with self._lock:
            ended = [one for one in self._ending if one.worker.has_ended]
            self._ending = [one for one in self._ending if one not in ended]
        for one in ended:
            one.client.close()
            if one.settings.name not in self._running:
                self._claims.release(one.settings.name)

    def _is_mine(self, name: str) -> bool:
        """Whether this node publishes to a target now: not while old settings still send something."""
        self._let_go()
        return all(one.settings.name != name for one in self._ending) and self._claims.is_held(name)

    def study_published(self, study: int, acknowledged: float | None, is_complete: bool) -> None:  # noqa: FBT001  a callback's
        """A study (its row) has been published. `is_complete`: the association that brought it has ended."""
        running = self._running
        if not running:
            return
        uid = ""
        with contextlib.suppress(IndexFault):
            rows = self._database.rows(Study.select(Study.uid).where(Study.id == study))
            uid = "".join(found for (found,) in rows)
        for one in running.values():
            one.worker.wake(uid, acknowledged, is_complete=is_complete)

    def look(self) -> None:
        """Another process may have changed something: `publish retry`, or `publish verify`."""
        for one in self._running.values():
            one.worker.look()

    def verify(self, name: str, *, mends: bool) -> "TargetVerification":
        """Return a comparison of what a target has with what the index has."""
        from index.publication.targets.checks.verification import TargetVerification

        settings = next(one for one in self.settings if one.name == name)
        return TargetVerification(self._database, self._resources, settings, mends=mends)

    def export(self, fhir: str, folder: Path, since: datetime | None = None) -> "Exported":
        """Write all resources as NDJSON files, or those that have changed since. Raises OSError, NotKept."""
        from index.publication.targets.export import export

        return export(self._database, self._resources, fhir, folder, since)

    def failing(self) -> dict[str, str]:
        """Return the targets to which nothing can be sent now, each with the reason."""
        running = self._running
        return {name: why for name, one in running.items() if (why := one.worker.failure)}
