"""`upper_layer = "stock"`: the same services on pynetdicom's own threads, by its public interface.

The way out should a new pynetdicom break scp/upperlayer/dul.py. It polls, and holds each object in memory.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.transport import AssociationSocket

from scp.association.contexts import fits, is_storage
from scp.settings.tls import describe, subject
from scp.upperlayer.served import Desk, ServedAssociation, link_of, request_of
from scp.wire.status import SOP_CLASS_NOT_SUPPORTED

# The Storage Service Class (PS3.4 Annex B): what pynetdicom serves C-STORE by.
STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"

# How long pynetdicom's other thread may take to say goodbye, in seconds.
GOODBYE = 5.0


class StockAssociation(ServedAssociation):
    """An association served by pynetdicom's two polling threads."""

    def __init__(
        self, desk: Desk, connection: socket.socket, on_over: Callable[[ServedAssociation], None]
    ) -> None:
        connection.settimeout(desk.dicom.timeouts.pdu)
        super().__init__(desk, connection, on_over)
        self.bind(evt.EVT_SOP_COMMON, _serve_as_storage)
        self.bind(evt.EVT_C_STORE, _store)
        self.bind(evt.EVT_CONN_CLOSE, _closed)
        self.operating = False

    def wind_down(self) -> None:
        """Abort unless an object is arriving or being kept."""
        if not (self.operating or self.dimse.message or self.dimse.msg_queue.qsize()):
            self.cut()

    def cut(self) -> None:
        """Abort: by the protocol where there is an association, by the socket where there is none."""
        if self.is_established:
            self.abort()
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def post(self, work: Callable[["StockAssociation"], None]) -> None:
        """Have `work` done by a thread of its own: pynetdicom's reactor pauses for a request of ours."""
        threading.Thread(target=work, args=(self,), name=f"{self.name}-work", daemon=True).start()

    def hang_up(self) -> None:
        """Close the connection when pynetdicom's other thread has done with it."""
        if self.dul.is_alive():
            self.dul.join(GOODBYE)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _secure(self) -> bool:
        if self.desk.ssl_context is not None:
            try:
                # Each step of the handshake has this time, not all of it: the other layer does better.
                self.connection.settimeout(self.desk.dicom.timeouts.request)
                # First the socket, then the handshake, so that `cut` can end it.
                self.connection = secured = self.desk.ssl_context.wrap_socket(
                    self.connection, server_side=True, do_handshake_on_connect=False
                )
                secured.do_handshake()
            except OSError as error:
                return self.not_secured(describe(error))
            secured.settimeout(self.desk.dicom.timeouts.pdu)
            # Not a new AssociationSocket: that would tell the state machine of a second connection.
            cast("AssociationSocket", self.dul.socket).socket = secured
            self.session.secured(secured.version(), subject(secured.getpeercert()))
        return True

    def _provide(self) -> None:
        self.set_socket(AssociationSocket(self, client_socket=self.connection))

    def _serve_request(self, msg: Any, context_id: int) -> None:
        # pynetdicom chooses the service by the message's SOP Class, which need not be the context's.
        context = self._accepted_cx.get(context_id)
        sop_class = getattr(msg, "AffectedSOPClassUID", None) or getattr(msg, "RequestedSOPClassUID", None)
        services = self.desk.admission.services
        is_stray = context and sop_class and not fits(str(context.abstract_syntax), str(sop_class), services)
        if is_stray and not isinstance(msg, C_STORE):
            self.session.ending("aborted", "a message of another SOP Class than its context's")
            self.abort()
        else:
            super()._serve_request(msg, context_id)


def _closed(event: Event) -> None:
    """End the wait for a request that will not come; pynetdicom would go on waiting for it."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(cast("Any", None))


def _serve_as_storage(event: Event) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Tell pynetdicom that each storage SOP Class proposed, known to it or not, is of the storage service."""
    items = {}
    for context in request_of(event.assoc).presentation_context_definition_list:
        uid = cast("UID", context.abstract_syntax)
        if is_storage(uid):
            items[uid] = item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = uid
            item.service_class_uid = UID(STORAGE_SERVICE_CLASS)
    return items


def _store(event: Event) -> Dataset:
    assoc = cast("StockAssociation", event.assoc)
    request, context = cast("C_STORE", event.request), event.context
    status = Dataset()
    takes = any(one.as_scp for one in assoc.accepted_contexts if one.context_id == context.context_id)
    if not takes or request.AffectedSOPClassUID != context.abstract_syntax:
        status.Status = SOP_CLASS_NOT_SUPPORTED
        return status
    assoc.operating = True
    try:
        reception = assoc.desk.store.begin(
            link_of(event),
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
            str(context.transfer_syntax),
        )
        with cast("BytesIO", request.DataSet).getbuffer() as data:
            reception.write(data)
            assoc.session.did("stores", len(data))
        answer = reception.finish()
    finally:
        assoc.operating = False
    status.Status = answer.status
    if answer.comment:
        status.ErrorComment = answer.comment
    return status
