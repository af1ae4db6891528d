"""All targets of a configuration: started with the daemon, woken by the publisher."""

import contextlib
from collections.abc import Sequence
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
        self._running: list[tuple[TargetWorker, TargetClient]] = []
        self.listing = TargetListing(database, [one.name for one in settings])

    def start(self) -> None:
        """Begin to publish to all of them."""
        if not self.settings:
            return
        # The HTTP library takes a tenth of a second to import.
        from index.publication.targets.delivery import Delivery
        from index.publication.targets.http.client import TargetClient
        from index.publication.targets.knowledge import Knowledge
        from index.publication.targets.outbox import TargetOutbox
        from index.publication.targets.worker import TargetWorker

        for settings in self.settings:
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
                self._claims.is_held,
            )
            self._running.append((worker, client))
            worker.start()

    def stop(self) -> None:
        """End; what targets do not have stays in the outbox."""
        for worker, client in self._running:
            worker.stop()
            client.close()
        self._running = []
        self._claims.release()

    def study_published(self, study: int, acknowledged: float | None, is_complete: bool) -> None:  # noqa: FBT001  a callback's
        """A study (its row) has been published. `is_complete`: the association that brought it has ended."""
        if not self._running:
            return
        uid = ""
        with contextlib.suppress(IndexFault):
            uid = "".join(*self._database.rows(Study.select(Study.uid).where(Study.id == study)))
        for worker, _ in self._running:
            worker.wake(uid, acknowledged, is_complete=is_complete)

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
        return {worker.name: worker.failure for worker, _ in self._running if worker.failure}
