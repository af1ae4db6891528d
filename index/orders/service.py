"""The orders part of the façade, at `Index.orders`."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from index.database.claims import Work
from index.database.connection import Database
from index.database.turns import Turns
from index.errors import CannotListen, DatabaseFault
from index.orders.listing import ListedOrder, list_orders
from index.orders.matching.match_store import MatchStore, Unmatched
from index.orders.patients.merges import Patients
from index.orders.records import NewOrder
from index.orders.settings import WorklistSettings
from index.orders.store import OrderStore
from index.storage.object_keys import FIRST
from index.supervisor import Supervisor

if TYPE_CHECKING:
    from index.orders.folder import WorklistFolder
    from index.orders.hl7.handler import Handler
    from index.orders.hl7.mllp import Listener
    from index.orders.import_orders import Imported


class Orders:
    """The orders of an index: received, added, listed, removed, matched to studies."""

    def __init__(
        self, database: Database, settings: WorklistSettings, workers: Supervisor | None = None
    ) -> None:
        self._database = database
        self._settings = settings
        self._workers = workers or Supervisor()
        self.store = OrderStore(database)
        self._patients = Patients(database, settings.local_authority)
        self._matches = MatchStore(database, settings.match)
        self._listener: Listener | None = None
        self._folder: WorklistFolder | None = None

    @cached_property
    def _handler(self) -> "Handler":
        from index.orders.hl7.handler import Handler

        return Handler(self._database, self.store, self._patients, self._settings.hl7_senders)

    @property
    def hl7_address(self) -> tuple[str, int] | None:
        """The address of the HL7 listener, while serving."""
        return self._listener.address if self._listener else None

    def serve(self, on_fatal: Callable[[DatabaseFault], None] = lambda _: None, node: int = FIRST) -> None:
        """Start the HL7 listener and follow this node's folder, where configured. Raises CannotListen."""
        settings = self._settings
        if settings.hl7_port is not None:
            self._listener = self._listen(settings.hl7_host, settings.hl7_port, on_fatal)
            self._listener.start()
        if settings.folder is not None:
            from index.orders.folder import WorklistFolder

            self._folder = WorklistFolder(
                self.store, settings.folder, settings.folder_interval, self._workers, node
            )
            self._folder.start()

    def _listen(self, host: str, port: int, on_fatal: Callable[[DatabaseFault], None]) -> "Listener":
        from index.orders.hl7.mllp import Listener

        networks = self._settings.hl7_networks
        try:
            return Listener(host, port, networks, self._handler.handle, on_fatal, self._workers)
        except OSError as error:
            raise CannotListen("worklist.hl7_", host, port, error) from error

    def upstream_turns(self, interval: float) -> Turns:
        """Return the turns at querying an upstream worklist: one node does it for all."""
        return Turns(self._database, Work.UPSTREAM, interval)

    def stop(self) -> None:
        """Stop to take orders; return when running messages and files are done."""
        if self._listener:
            self._listener.stop()
        if self._folder:
            self._folder.stop()

    def add(self, order: NewOrder) -> int:
        """Add or change an order; return its row id. Raises NotKept."""
        return self.store.put(order)

    def import_files(self, paths: Iterable[Path]) -> "Imported":
        """Import worklist files, HL7 messages and FHIR resources. Raises DatabaseFault."""
        from index.orders.import_orders import OrderImport

        return OrderImport(self.store, self._handler).run(paths)

    def remove(self, order: int) -> None:
        """Delete an order. Raises NotFound."""
        self.store.remove(order)

    def listed(self, order: int | None = None) -> list[ListedOrder]:
        """Return all orders, or one of them, oldest first."""
        return list_orders(self._database, order)

    def match(self, study: int, uid: str) -> None:
        """Match a study (row id, UID) by the rules, before it is published."""
        self._matches.match(study, uid)

    def set_match(self, uid: str, order: int) -> None:
        """Match a study to an order by hand. Raises NotFound."""
        self._matches.set(uid, order)

    def undo_match(self, uid: str) -> None:
        """Separate a study from its orders; the rules no longer match it. Raises NotFound."""
        self._matches.undo(uid)

    def rematch(self, uid: str) -> None:
        """Let the rules match a study again. Raises NotFound."""
        self._matches.rematch(uid)

    def unmatched(self) -> list[Unmatched]:
        """Return the studies that have instances and no order, each with the reason."""
        return self._matches.unmatched()
