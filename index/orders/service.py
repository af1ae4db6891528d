"""The order side of the façade: everything that other packages do with orders, at `Index.orders`."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.database.connection import Database
from index.errors import CannotListen, DatabaseFault
from index.orders.candidates import Candidates
from index.orders.listing import listed
from index.orders.matching.match_store import Matches, Unmatched
from index.orders.patients.merges import Patients
from index.orders.records import Candidate, Listed, NewOrder, Source, Status
from index.orders.settings import WorklistSettings
from index.orders.store import OrderStore
from index.supervisor import Supervisor

if TYPE_CHECKING:
    from index.orders.folder import Folder
    from index.orders.hl7.handler import Handler
    from index.orders.hl7.mllp import Listener
    from index.orders.import_orders import Imported


class Orders:
    """The orders of an index: told, listed, removed, asked for by worklist queries, matched to studies."""

    def __init__(
        self, database: Database, settings: WorklistSettings, workers: Supervisor | None = None
    ) -> None:
        self._database = database
        self._settings = settings
        self._workers = workers or Supervisor()
        self._store = OrderStore(database)
        self._patients = Patients(database, settings.local_authority)
        self._matches = Matches(database, settings.match)
        self._listener: Listener | None = None
        self._folder: Folder | None = None

    @cached_property
    def _handler(self) -> "Handler":
        from index.orders.hl7.handler import Handler

        return Handler(self._database, self._store, self._patients, self._settings.hl7_senders)

    @property
    def hl7_address(self) -> tuple[str, int] | None:
        """Where HL7 messages are listened for, while serving."""
        return self._listener.address if self._listener else None

    def serve(self, on_fatal: Callable[[DatabaseFault], None] = lambda _: None) -> None:
        """Begin to listen for HL7 and to follow the folder, where configured. Raises CannotListen."""
        settings = self._settings
        if settings.hl7_port is not None:
            self._listener = self._listen(settings.hl7_host, settings.hl7_port, on_fatal)
            self._listener.start()
        if settings.folder is not None:
            from index.orders.folder import Folder

            self._folder = Folder(self._store, settings.folder, settings.folder_interval, self._workers)
            self._folder.start()

    def _listen(self, host: str, port: int, on_fatal: Callable[[DatabaseFault], None]) -> "Listener":
        from index.orders.hl7.mllp import Listener

        networks = self._settings.hl7_networks
        try:
            return Listener(host, port, networks, self._handler.handle, on_fatal, self._workers)
        except OSError as error:
            raise CannotListen("worklist.hl7_", host, port, error) from error

    def stop(self) -> None:
        """Take no more orders in; return when what runs is done."""
        if self._listener:
            self._listener.stop()
        if self._folder:
            self._folder.stop()

    def add(self, order: NewOrder) -> int:
        """Take an order over, new or changed; return its row id. Raises NotKept."""
        return self._store.put(order)

    def add_fhir(self, resource: Any, sender: str = "") -> list[int]:
        """Take over the orders of a FHIR R4 ServiceRequest or Bundle. Raises BadResource, NotKept."""
        from index.orders import fhir

        return self._store.put_all(fhir.orders_of(resource, sender))

    def import_files(self, paths: Iterable[Path]) -> "Imported":
        """Import worklist files, HL7 messages and FHIR resources. Raises DatabaseFault."""
        from index.orders.import_orders import OrderImport

        return OrderImport(self._store, self._handler).run(paths)

    def end(self, order: int, status: Status) -> None:
        """Cancel or discontinue an order. Raises NotFound."""
        self._store.end(order, status)

    def withdraw(self, source: Source, sender: str, identity: str) -> None:
        """Follow a source that tells of an order no more."""
        self._store.withdraw(source, sender, identity)

    def identities(self, source: Source, sender: str) -> dict[str, str]:
        """Return what a source calls its orders, each with its stamp."""
        return self._store.stamps(source, sender)

    def remove(self, order: int) -> None:
        """Forget an order. Raises NotFound."""
        self._store.remove(order)

    def listed(self, order: int | None = None) -> list[Listed]:
        """Return all orders, or one of them, oldest first."""
        return listed(self._database, order)

    def chosen(self, **wanted: Any) -> Candidates:
        """Return a superset of the worklist items that a query means; see candidates.py for the keys."""
        return Candidates(self._database, **wanted)

    def candidates(self, **wanted: Any) -> list[Candidate]:
        """Return the same at once, as a list."""
        return list(self.chosen(**wanted))

    def set_step_status(self, step: int, status: Status) -> None:
        """Let a scheduled step (row id) and its order follow what a modality does. Raises NotFound."""
        self._store.set_step_status(step, status)

    def match(self, study: int, uid: str) -> None:
        """Match a study (row id, UID) by the rules, before it is published."""
        self._matches.match(study, uid)

    def set_match(self, uid: str, order: int) -> None:
        """Match a study to an order by hand. Raises NotFound."""
        self._matches.set(uid, order)

    def undo_match(self, uid: str) -> None:
        """Part a study from its orders, and let the rules leave it alone. Raises NotFound."""
        self._matches.undo(uid)

    def rematch(self, uid: str) -> None:
        """Let the rules decide about a study again. Raises NotFound."""
        self._matches.automatic(uid)

    def unmatched(self) -> list[Unmatched]:
        """Return the studies that have instances and no order, each with the doubt."""
        return self._matches.unmatched()
