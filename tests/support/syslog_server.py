"""A syslog server that keeps what it gets, and reads audit messages as strictly as their schema does."""

import base64
import re
import socket
import ssl
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from lxml import etree

# RFC 5424 Section 6, with no structured data; then a byte order mark and XML.
HEADER = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) (?P<host>[\x21-\x7e]+)"
    rb" imagingstudyd (?P<process>\d{1,10}) DICOM\+RFC3881 - \xef\xbb\xbf(?P<content><AuditMessage.*)",
    re.DOTALL,
)


@cache
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(Path(__file__).parent / "audit_message.rng"))


class Message:
    """An audit message that is valid."""

    def __init__(self, received: bytes) -> None:
        found = HEADER.fullmatch(received)
        assert found, received[:300]
        self.priority = int(found["priority"])
        self.root = etree.fromstring(found["content"])
        assert schema().validate(self.root), (schema().error_log, found["content"])

    def _codes(self, path: str) -> list[str]:
        return [node.get("csd-code") for node in self.root.iterfind(path)]

    @property
    def event(self) -> str:
        return self._codes("EventIdentification/EventID")[0]

    @property
    def type(self) -> str:
        return "".join(self._codes("EventIdentification/EventTypeCode"))

    @property
    def action(self) -> str:
        return str(self.root.find("EventIdentification").get("EventActionCode"))

    @property
    def outcome(self) -> str:
        return str(self.root.find("EventIdentification").get("EventOutcomeIndicator"))

    @property
    def parties(self) -> list[tuple[str, str, bool]]:
        """User, role and whether it is the requestor, of each participant."""
        return [
            (
                node.get("UserID"),
                "".join(one.get("csd-code") for one in node.iterfind("RoleIDCode")),
                node.get("UserIsRequestor") == "true",
            )
            for node in self.root.iterfind("ActiveParticipant")
        ]

    @property
    def objects(self) -> dict[str, str]:
        """The ids of the objects by the type of each id."""
        nodes = self.root.iterfind("ParticipantObjectIdentification")
        return {
            node.find("ParticipantObjectIDTypeCode").get("csd-code"): node.get("ParticipantObjectID")
            for node in nodes
        }

    @property
    def study(self) -> str:
        return self.objects.get("110180", "")

    @property
    def patient(self) -> str:
        return self.objects.get("2", "")

    @property
    def classes(self) -> dict[str, int]:
        found = self.root.iterfind(".//SOPClass")
        return {node.get("UID"): int(node.get("NumberOfInstances")) for node in found}

    @property
    def query(self) -> bytes:
        return base64.b64decode(self.root.findtext(".//ParticipantObjectQuery") or "")

    @property
    def alert(self) -> str:
        """What a Security Alert says, or nothing."""
        found = self.root.find(".//ParticipantObjectDetail[@type='Alert Description']")
        return "" if found is None else base64.b64decode(found.get("value")).decode()

    def detail(self, kind: str) -> bytes:
        return base64.b64decode(self.root.find(f".//ParticipantObjectDetail[@type='{kind}']").get("value"))


class SyslogServer:
    """Listens by UDP, TCP, TLS (with a context) or on a socket of this machine, at `address`."""

    def __init__(self, transport: str, path: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.transport = transport
        self.received: list[bytes] = []
        self.connections = 0
        self._tls = tls
        self._open: list[socket.socket] = []
        if transport == "unix":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(path))
            self.address = str(path)
        elif transport == "udp":
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
        else:
            self._socket = socket.create_server(("127.0.0.1", 0))
        if transport != "unix":
            self.port = self._socket.getsockname()[1]
            self.address = f"{transport}://127.0.0.1:{self.port}"
        serve = self._datagrams if transport in ("udp", "unix") else self._accept
        threading.Thread(target=serve, daemon=True).start()

    @property
    def messages(self) -> list[Message]:
        return [Message(one) for one in self.received[:]]

    def of(self, event: str, **wanted: Any) -> list[Message]:
        """Return the messages of an event, with these values."""
        return [
            one
            for one in self.messages
            if one.event == event and all(getattr(one, name) == value for name, value in wanted.items())
        ]

    def cut(self) -> None:
        """Close the connections, as a restart would."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.cut()

    def _datagrams(self) -> None:
        with suppress(OSError):
            while received := self._socket.recv(1 << 17):
                self.received.append(received)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            stream = connection.makefile("rb")
            while True:
                # RFC 6587 Section 3.4.1: MSG-LEN SP SYSLOG-MSG.
                digits = b""
                while (one := stream.read(1)) not in (b" ", b""):
                    digits += one
                if not one:
                    return
                self.received.append(stream.read(int(digits)))
