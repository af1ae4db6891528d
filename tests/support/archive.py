"""A listener with the store and retrieve services on an index of its own, and scripted peers."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset

from index import Index
from scp.daemon.listener import Listener
from scp.observing.metrics import Metrics
from scp.services.retrieve import RetrieveService
from scp.services.store import StoreService
from scp.settings.sections import Configuration, DicomSettings, LimitsSettings, Peer
from support.filling import served
from support.peer import EXPLICIT, Parrot, associate_rq, elements, item, p_data, pdu, pdv, ui, us

GET = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PATIENT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
C_GET, C_MOVE = 0x0010, 0x0021
SUCCESS, PENDING, CANCELLED = 0x0000, 0xFF00, 0xFE00


class Archive:
    """An index below a folder, served on a port. `peers` are those of the configuration, changeable."""

    def __init__(self, data: Path, *peers: Peer) -> None:
        self.index: Index = served(data)
        self.configuration = Configuration(
            dicom=DicomSettings(host="127.0.0.1", port=0, unknown_callers="all"), peers=peers
        )
        self.retrieve = RetrieveService(self.index, lambda: self.configuration, Metrics())
        self.listener = Listener(
            self.configuration.dicom,
            LimitsSettings(),
            peers,
            StoreService(self.index),
            services=self.retrieve.SERVICES,
            retrieve=self.retrieve,
        )
        _, self.port = self.listener.start()
        self._is_stopped = False

    def add_peer(self, **values: object) -> None:
        """Add a peer that can be a destination."""
        peers = (*self.configuration.peers, Peer(**values))
        self.configuration = self.configuration.model_copy(update={"peers": peers})

    def stop(self) -> None:
        """Stop the listener, as the daemon does it."""
        if not self._is_stopped:
            self._is_stopped = True
            self.listener.stop(0)

    def close(self) -> None:
        self.stop()
        self.index.close()


def identifier(level: str, **keys: object) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def role(sop_class: str) -> bytes:
    """Return a role selection item: the requester is SCP of storage (PS3.7 Section D.3.3.4)."""
    return item(0x54, struct.pack(">H", len(sop_class)) + sop_class.encode() + b"\0\1")


def request(
    kind: int, sop_class: str, data: bytes, *, context: int = 1, message: int = 7, destination: str = ""
) -> bytes:
    """Return a C-GET-RQ or C-MOVE-RQ with its identifier."""
    named = [struct.pack("<HHL", 0, 0x0600, 16) + destination.ljust(16).encode()] if destination else []
    body = b"".join(
        [
            ui(0x0002, sop_class),
            us(0x0100, kind),
            us(0x0110, message),
            *named,
            us(0x0700, 0),
            us(0x0800, 1),
        ]
    )
    whole = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    return p_data(pdv(context, 3, whole)) + p_data(pdv(context, 2, data))


def cancel(message: int = 7, context: int = 1) -> bytes:
    """Return a C-CANCEL-RQ."""
    body = us(0x0100, 0x0FFF) + us(0x0120, message) + us(0x0800, 0x0101)
    return p_data(pdv(context, 3, struct.pack("<HHLL", 0, 0, 4, len(body)) + body))


def store_response(command: dict[int, bytes], status: int = 0) -> bytes:
    """Return the command set of the response to a C-STORE."""
    body = b"".join(
        [
            ui(0x0002, command[0x0002].decode().strip("\0")),
            us(0x0100, 0x8001),
            us(0x0120, number(command, 0x0110)),
            us(0x0800, 0x0101),
            us(0x0900, status),
        ]
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def number(command: dict[int, bytes], element: int) -> int:
    return int.from_bytes(command[element], "little")


def read_message(peer: Parrot) -> tuple[int, dict[int, bytes], bytes]:
    """Return context id, command set and data set of the next message."""
    parts = {1: b"", 0: b""}
    is_done = False
    command: dict[int, bytes] = {}
    context = 0
    while not is_done:
        kind, content = peer.read_pdu()
        assert kind == 0x04, (kind, content)
        while content:
            length, context, control = struct.unpack_from(">LBB", content)
            parts[control & 1] += content[6 : 4 + length]
            content = content[4 + length :]
            if control == 3:
                command = elements(parts[1])
            is_done = bool(control & 2) and (not control & 1 or number(command, 0x0800) == 0x0101)
    return context, command, parts[0]


class Destination:
    """A scripted storage SCP on a raw socket. `answer`, by number of object, gives a status, None to die."""

    def __init__(
        self,
        answer: Callable[[int], int | None] = lambda _number: 0,
        *,
        accepts: Callable[[str, list[str]], str | None] = lambda _sop_class, syntaxes: syntaxes[0],
        rejects: bool = False,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer
        self._accepts = accepts
        self._rejects = rejects
        self._context = context
        self.received: list[tuple[str, bytes]] = []
        self.commands: list[dict[int, bytes]] = []
        self.proposed: list[list[tuple[str, list[str]]]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        peer = Parrot.__new__(Parrot)
        if self._context:
            try:
                connection = self._context.wrap_socket(connection, server_side=True)
            except OSError:
                return
        peer.socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, content = peer.read_pdu()
        if self._rejects:
            peer.send(pdu(0x03, b"\0\1\1\1"))
            return
        contexts = _proposed(content)
        self.proposed.append(list(contexts.values()))
        chosen = {one: (syntaxes, self._accepts(cls, syntaxes)) for one, (cls, syntaxes) in contexts.items()}
        peer.send(_accept(content, chosen))
        try:
            self._messages(peer)
        except (AssertionError, OSError):
            connection.close()

    def _messages(self, peer: Parrot) -> None:
        while True:
            context, command, data = read_message(peer)
            self.commands.append(command)
            status = self._answer(len(self.commands))
            if status is None:
                peer.socket.close()
                return
            if status == 0:
                self.received.append((command[0x1000].decode().strip("\0"), data))
            peer.send(p_data(pdv(context, 3, store_response(command, status))))


def _proposed(content: bytes) -> dict[int, tuple[str, list[str]]]:
    found, at = {}, 68
    while at < len(content):
        kind, length = struct.unpack_from(">BxH", content, at)
        if kind == 0x20:
            body, inner, values = content[at + 4 : at + 4 + length], 4, []
            while inner < len(body):
                _, size = struct.unpack_from(">BxH", body, inner)
                values.append(body[inner + 4 : inner + 4 + size].decode())
                inner += 4 + size
            found[body[0]] = (values[0], values[1:])
        at += 4 + length
    return found


def _accept(content: bytes, chosen: dict[int, tuple[list[str], str | None]]) -> bytes:
    body = content[:68] + item(0x10, b"1.2.840.10008.3.1.1.1")
    for context, (syntaxes, syntax) in chosen.items():
        result = 0 if syntax else 4
        named = item(0x40, (syntax or syntaxes[0]).encode())
        body += item(0x21, struct.pack(">BxBx", context, result) + named)
    return pdu(0x02, body + item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")))


def associated(port: int, sop_class: str, *stored: str, syntax: str = EXPLICIT) -> Parrot:
    """Return a raw peer whose first context is for `sop_class`, and which is SCP of the `stored` classes."""
    contexts = [(1, sop_class, (syntax,))]
    contexts += [(2 * n + 3, one, (EXPLICIT,)) for n, one in enumerate(stored)]
    peer = Parrot(port, timeout=60)
    peer.send(associate_rq(contexts, extra=b"".join(map(role, stored))))
    kind, _ = peer.read_pdu()
    assert kind == 0x02
    return peer
