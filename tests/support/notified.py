"""A peer that takes Instance Availability Notifications, by pynetdicom as SCP (PS3.4 Annex R)."""

import ssl
import threading
from collections.abc import Callable

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import InstanceAvailabilityNotification  # type: ignore[attr-defined]


class NotifiedPeer:
    """Keeps the SOP Instance UID and data set of each N-CREATE. `status` gives the answer to the n-th."""

    def __init__(
        self, status: Callable[[int], int] = lambda _: 0x0000, context: ssl.SSLContext | None = None
    ) -> None:
        self.notifications: list[tuple[str, Dataset]] = []
        self.associations = 0
        self._status = status
        self._context = context
        self._lock = threading.Lock()
        self._ae = AE("RIS")
        self._ae.add_supported_context(InstanceAvailabilityNotification)
        self._server = self._listen(0)
        self.port = self._server.server_address[1]

    def _listen(self, port: int):
        handlers = [(evt.EVT_N_CREATE, self._take), (evt.EVT_ACCEPTED, self._count)]
        return self._ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=self._context
        )

    def listen(self) -> None:
        """Listen on the same port again."""
        self._server = self._listen(self.port)

    def stop(self) -> None:
        self._server.shutdown()

    def _count(self, _: evt.Event) -> None:
        self.associations += 1

    def _take(self, event: evt.Event) -> tuple[int, Dataset]:
        with self._lock:
            self.notifications.append((event.request.AffectedSOPInstanceUID, event.attribute_list))
            return self._status(len(self.notifications)), Dataset()
