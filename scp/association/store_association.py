"""An association that we request to send objects: C-STORE as SCU (PS3.4 Annex B)."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple, Protocol

import pynetdicom.pdu
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from index import IMPLEMENTATION_CLASS_UID
from scp.association.application_entity import IMPLEMENTATION_VERSION_NAME
from scp.association.client import CONNECT_SECONDS, RESPONSE_SECONDS, Unreachable, address_of, tls_context
from scp.settings.sections import Configuration
from scp.wire.command_set import C_STORE_RSP, InvalidCommandSet, parse, response_status
from scp.wire.connection import Closed, Connection, DeadlineExceeded, Interrupted
from scp.wire.pdus import (
    A_ABORT,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    ASSOCIATE_LENGTH,
    CONTEXT_AND_CONTROL_LENGTH,
    LAST,
    P_DATA_TF,
    PDU_HEADER,
    PDV_HEADER,
    SEND_LENGTH,
    DataSource,
    message_pdus,
)

# PS3.8 Section 9.3.2.2: context ids are the odd numbers from 1 to 255.
MAX_CONTEXTS = 128
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
# The largest PDU that we offer to receive, in bytes: responses are short.
MAX_PDU = 16 * 1024
# How long a peer may take to answer a release, in seconds.
RELEASE_SECONDS = 5.0
_LAST_ID = 0xFFFF

_RELEASE_RQ = PDU_HEADER.pack(A_RELEASE_RQ, 4) + bytes(4)
_RELEASE_RP = PDU_HEADER.pack(A_RELEASE_RP, 4) + bytes(4)
_ABORT = PDU_HEADER.pack(A_ABORT, 4) + bytes(4)


class AssociationLost(ConnectionError):
    """Raised when an association has ended before a response came; the text says why."""


class StoreResponse(NamedTuple):
    """The response to a C-STORE; `status` is None where it has none."""

    status: int | None
    comment: str = ""


class StoreChannel(Protocol):
    """An association over which C-STORE requests of ours may be sent."""

    @property
    def contexts(self) -> dict[str, dict[str, int]]:
        """The ids of accepted presentation contexts, by SOP Class UID and transfer syntax UID."""

    def next_message_id(self) -> int:
        """Return the Message ID of the next request."""

    def store(self, context_id: int, message_id: int, request: bytes, data: DataSource) -> StoreResponse:
        """Send a C-STORE-RQ and wait for its response. Raises AssociationLost."""


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context that we propose."""

    sop_class_uid: str
    transfer_syntaxes: Sequence[str]


class MessageIds:
    """Message IDs, from 1 to 65,535 and again from 1 (PS3.7 Section E.1)."""

    def __init__(self) -> None:
        self._last = 0

    def next_message_id(self) -> int:
        """Return the next one."""
        self._last = self._last % _LAST_ID + 1
        return self._last


class StoreAssociation(MessageIds):
    """A StoreChannel to a peer of [[peers]]. Used by one thread; another may call `interrupt`.

    `is_over` is asked each second while the peer is waited for: whether to wait no longer.
    """

    def __init__(self, is_over: Callable[[], bool] | None = None) -> None:
        super().__init__()
        self._is_over = is_over
        self.contexts: dict[str, dict[str, int]] = {}
        self._name = ""
        self._connection: Connection | None = None
        self._memory = memoryview(bytearray(SEND_LENGTH))
        self._max_pdu = 0
        self._interrupted = False

    def open(self, configuration: Configuration, aet: str, proposed: Sequence[ProposedContext]) -> None:
        """Connect and negotiate; at most MAX_CONTEXTS are `proposed`. Raises Unreachable."""
        peer, host, port = address_of(configuration, aet)
        self._name = f"peer {peer.aet}"
        tls = tls_context(configuration, peer)
        try:
            connecting = socket.create_connection((host, port), CONNECT_SECONDS)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"{self._name}: cannot be reached: {error}") from error
        self._connection = connection = Connection(connecting, is_over=self._is_over)
        if self._interrupted:
            connection.interrupt()
        try:
            if tls:
                connection.start_tls(tls, monotonic() + CONNECT_SECONDS, server_side=False)
            self._negotiate(connection, _request(configuration.dicom.aet, peer.aet, proposed), proposed)
        except (Closed, DeadlineExceeded, Interrupted, AssociationLost) as error:
            self.abort()
            raise Unreachable(f"{self._name}: {_why(error, 'no answer to the request')}") from error
        except BaseException:
            self.abort()
            raise

    def store(self, context_id: int, message_id: int, request: bytes, data: DataSource) -> StoreResponse:
        """See StoreChannel."""
        connection = self._connection
        if connection is None:
            raise AssociationLost(f"{self._name}: the association has ended")
        try:
            for pdus in message_pdus(context_id, request, data, self._max_pdu, self._memory):
                connection.send(pdus, monotonic() + RESPONSE_SECONDS)
            return self._response(connection, message_id)
        except (Closed, DeadlineExceeded, Interrupted) as error:
            self.abort()
            raise AssociationLost(f"{self._name}: {_why(error, 'no response')}") from error
        except AssociationLost:
            self.abort()
            raise
        except OSError as error:  # of the file: the message cannot be completed
            self.abort()
            raise AssociationLost(f"{self._name}: aborted by us: {error.strerror or error}") from error

    def interrupt(self) -> None:
        """Let the thread that waits for the peer raise AssociationLost. Called from any thread."""
        self._interrupted = True
        if connection := self._connection:
            connection.interrupt()

    def release(self) -> None:
        """Release the association and close the connection (PS3.8 Section 7.2). Raises nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            deadline = monotonic() + RELEASE_SECONDS
            connection.send(_RELEASE_RQ, deadline)
            while self._read(connection, deadline)[0] not in (A_RELEASE_RP, A_RELEASE_RQ):
                pass
        except (Closed, DeadlineExceeded, Interrupted, AssociationLost):
            pass
        connection.close()

    def abort(self) -> None:
        """Abort the association and close the connection (PS3.8 Section 7.3). Raises nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Closed):
                connection.send(_ABORT, monotonic())
            connection.close()

    def _negotiate(self, connection: Connection, request: bytes, proposed: Sequence[ProposedContext]) -> None:
        deadline = monotonic() + RESPONSE_SECONDS
        connection.send(request, deadline)
        kind, body = self._read(connection, deadline)
        if kind == A_ASSOCIATE_RJ:
            raise Unreachable(f"{self._name}: rejects the association ({'/'.join(map(str, body[1:4]))})")
        if kind != A_ASSOCIATE_AC:
            raise Unreachable(f"{self._name}: answers the association request with a PDU of type {kind:02X}")
        try:
            answer: Any = pynetdicom.pdu.A_ASSOCIATE_AC()
            answer.decode(PDU_HEADER.pack(kind, len(body)) + body)
            for item in answer.presentation_context:
                if item.result == 0 and item.transfer_syntax:
                    sop_class = proposed[(item.context_id - 1) // 2].sop_class_uid
                    self.contexts.setdefault(sop_class, {}).setdefault(
                        str(item.transfer_syntax), item.context_id
                    )
            self._max_pdu = int(answer.user_information.maximum_length or 0)
        except Exception as error:  # pynetdicom may raise anything for invalid bytes
            raise Unreachable(f"{self._name}: its A-ASSOCIATE-AC cannot be read") from error

    def _response(self, connection: Connection, message_id: int) -> StoreResponse:
        deadline, encoded = monotonic() + RESPONSE_SECONDS, bytearray()
        while True:
            kind, body = self._read(connection, deadline)
            if kind == A_RELEASE_RQ:
                connection.send(_RELEASE_RP, deadline)
                raise AssociationLost(f"{self._name}: has released the association")
            if kind != P_DATA_TF:
                raise AssociationLost(f"{self._name}: a PDU of type {kind:02X} instead of a response")
            while len(body) >= PDV_HEADER.size:
                size, _, control = PDV_HEADER.unpack_from(body)
                end = PDV_HEADER.size + max(0, size - CONTEXT_AND_CONTROL_LENGTH)
                encoded += body[PDV_HEADER.size : end]
                body = body[end:]
                if control & LAST:
                    return self._parse(bytes(encoded), message_id)

    def _parse(self, encoded: bytes, message_id: int) -> StoreResponse:
        try:
            command = parse(encoded)
            if command.field == C_STORE_RSP and command.message_id == message_id:
                return StoreResponse(*response_status(command))
        except InvalidCommandSet as error:
            raise AssociationLost(f"{self._name}: {error}") from error
        raise AssociationLost(f"{self._name}: an unexpected message {command.field:04X}")

    def _read(self, connection: Connection, deadline: float) -> tuple[int, bytes]:
        """Read one PDU. Raises Closed, DeadlineExceeded, Interrupted, AssociationLost."""
        kind, length = PDU_HEADER.unpack(connection.read_exactly(PDU_HEADER.size, deadline))
        if length > ASSOCIATE_LENGTH - PDU_HEADER.size:
            raise AssociationLost(f"{self._name}: a PDU of type {kind:02X} with {length} bytes")
        body = bytes(connection.read_exactly(length, deadline))
        if kind == A_ABORT:
            raise AssociationLost(f"{self._name}: aborts the association")
        return kind, body


def _request(calling_aet: str, called_aet: str, proposed: Sequence[ProposedContext]) -> bytes:
    """Return an encoded A-ASSOCIATE-RQ (PS3.8 Section 9.3.2)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = calling_aet, called_aet
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = MAX_PDU
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive.user_information = [length, implementation, version]
    contexts = []
    for number, one in enumerate(proposed[:MAX_CONTEXTS]):
        context = PresentationContext()
        context.context_id = 2 * number + 1
        context.abstract_syntax = one.sop_class_uid
        context.transfer_syntax = list(one.transfer_syntaxes)
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    pdu = pynetdicom.pdu.A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _why(error: Exception, no_answer: str) -> str:
    if isinstance(error, DeadlineExceeded):
        return f"{no_answer} in time"
    if isinstance(error, Interrupted):
        return "is no longer waited for"
    return str(error)
