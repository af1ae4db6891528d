"""All subscriptions of an index: changed over HTTP, served by the daemon."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from index.database.claims import HeldClaims, Work
from index.database.connection import Database
from index.publication.resources import Resources
from index.publication.subscriptions.definitions import BadSubscription, read_definition
from index.publication.subscriptions.endpoints import is_allowed, origin_of
from index.publication.subscriptions.notifications import Notifications
from index.publication.subscriptions.store import Subscription, SubscriptionStore
from index.supervisor import Supervisor

if TYPE_CHECKING:
    from index.publication.subscriptions.worker import SubscriptionWorker

log = structlog.get_logger(__name__)


class NotAllowed(BadSubscription):
    """The configuration does not allow this endpoint, or none at all."""


class Subscriptions:
    """The subscriptions of an index. Safe to use from many threads."""

    def __init__(self, database: Database, resources: Resources, workers: Supervisor) -> None:
        self.store = SubscriptionStore(database)
        self.notifications = Notifications(resources)
        self.allowed: tuple[str, ...] = ()
        self._workers = workers
        self._claims = HeldClaims(database.claims, Work.SUBSCRIPTIONS)
        self._worker: SubscriptionWorker | None = None
        self._is_served = False

    def allow(self, prefixes: Iterable[str]) -> None:
        """Let notifications be sent to the addresses below these, and to no others."""
        self.allowed = tuple(prefixes)

    def start(self) -> None:
        """Begin to send notifications, where there may be a subscription. Raises NotKept.

        Another node may make one, and vanish.
        """
        self._is_served = True
        if self.allowed or self.store.all():
            self._begin()

    def stop(self) -> None:
        """End; what endpoints do not have is sent after the next start."""
        self._is_served = False
        if self._worker:
            self._worker.stop()
            self._worker = None
        self._claims.release("")

    def study_published(self) -> None:
        """A study has been published."""
        if self._worker:
            self._worker.wake()

    def put(
        self,
        fhir: str,
        name: str,
        resource: Mapping[str, Any],
        base: str,
        owner: str,
        version: int | None = None,
    ) -> tuple[Subscription, bool]:
        """Make or change one; see SubscriptionStore.put. Raises NotAllowed too."""
        if not self.allowed:
            raise NotAllowed(
                "subscriptions are off: [http] subscriptions names the addresses that may be told of changes"
            )
        endpoint = read_definition(fhir, resource, base).endpoint
        if not is_allowed(endpoint, self.allowed):
            raise NotAllowed(
                f"endpoint {origin_of(endpoint)}: is not below an address that [http] subscriptions names"
            )
        made, is_new = self.store.put(fhir, name, resource, base, owner, version)
        log.info(
            "subscription_put",
            subscription=name,
            fhir=fhir,
            owner=made.owner,
            endpoint=origin_of(endpoint),
            status=str(made.status),
            is_new=is_new,
        )
        self._begin()
        return made, is_new

    def delete(self, fhir: str, name: str) -> bool:
        """Delete one; return whether it was there."""
        is_deleted = self.store.delete(fhir, name)
        if is_deleted:
            log.info("subscription_deleted", subscription=name, fhir=fhir)
        return is_deleted

    def _begin(self) -> None:
        if not self._is_served:
            return
        if self._worker is None:
            # The HTTP library takes a tenth of a second to import.
            from index.publication.subscriptions.worker import SubscriptionWorker

            self._worker = SubscriptionWorker(
                self.store,
                self.notifications,
                lambda: self.allowed,
                lambda: self._claims.is_held(""),
                self._workers,
            )
        self._worker.start()
        self._worker.wake()
