"""A fake store, a running listener and a raw peer, for the tests of reception."""

import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from scp.daemon.listener import Listener
from scp.settings.sections import DicomSettings, LimitsSettings, Timeouts
from scp.wire.command_set import encode_response

CT = "1.2.840.10008.5.1.4.1.1.2"
ECHO = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


@dataclass(frozen=True)
class Answer:
    """Status and ErrorComment of a C-STORE-RSP."""

    status: int
    comment: str = ""


@dataclass
class Received:
    """One C-STORE that came to the fake store."""

    record: object
    command: object
    sop_class_uid: str
    transfer_syntax: str
    send: object
    store: "FakeStore"
    data: bytearray = field(default_factory=bytearray)
    fragments: int = 0
    finished: bool = False
    discarded: str = ""

    def write(self, fragment):
        self.data += fragment
        self.fragments += 1

    @property
    def sop_instance_uid(self):
        return self.command.sop_instance_uid

    def end(self):
        self.finished = True
        self.store.before_answer(self)
        answer = self.store.answers.get(self.sop_instance_uid, self.store.answer)
        self.record.count("stores", len(self.data))
        self.send(encode_response(self.command, answer.status, answer.comment))

    def discard(self, reason):
        self.discarded = reason


class FakeStore:
    """Takes the place of scp.services.store.StoreService."""

    def __init__(self):
        self.received = []
        self.answer = Answer(0x0000)
        self.answers = {}
        self.before_answer = lambda _received: None
        self.lock = Lock()

    def group(self, record, _has_more):
        return FakeGroup(self, record)


@dataclass
class FakeGroup:
    """Takes the place of scp.services.store.StoreGroup; it answers each at once."""

    store: FakeStore
    record: object

    def begin(self, command, sop_class_uid, transfer_syntax, send):
        received = Received(self.record, command, sop_class_uid, transfer_syntax, send, self.store)
        with self.store.lock:
            self.store.received.append(received)
        return received

    def flush(self):
        pass


def settings(**changes):
    changes = {"host": "127.0.0.1", "port": 0, **changes}
    timeouts = Timeouts(**changes.pop("timeouts", {}))
    return DicomSettings(timeouts=timeouts, **changes)


class Running:
    """A running listener, and what tests ask of it."""

    def __init__(self, *, limits=None, peers=(), store=None, **changes):
        listener = {
            key: changes.pop(key)
            for key in ("handlers", "services", "sockets", "on_association_end", "metrics")
            if key in changes
        }
        self.store = store or FakeStore()
        self.ended = []
        listener.setdefault("on_association_end", self.ended.append)
        self.listener = Listener(
            settings(**changes), LimitsSettings(**(limits or {})), peers, self.store, **listener
        )
        self.host, self.port = self.listener.start()
        self._stopped = False

    def stop(self, drain=0.0):
        if not self._stopped:
            self._stopped = True
            self.listener.stop(drain)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


# --- bytes on the wire -----------------------------------------------------------------------------


def item(kind, content):
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind, content):
    return struct.pack(">BxL", kind, len(content)) + content


def user_information(max_pdu=16384, extra=b""):
    return item(0x50, item(0x51, struct.pack(">L", max_pdu)) + item(0x52, b"1.2.3") + extra)


def associate_rq(
    contexts=((1, CT, (EXPLICIT,)),), *, calling="SCU", called="IMAGINGSTUDYD", max_pdu=16384, extra=b""
):
    body = struct.pack(">Hxx16s16s32x", 1, called.ljust(16).encode(), calling.ljust(16).encode())
    body += item(0x10, APPLICATION_CONTEXT.encode())
    for number, abstract, syntaxes in contexts:
        content = struct.pack(">Bxxx", number) + item(0x30, abstract.encode())
        content += b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, content)
    return pdu(0x01, body + user_information(max_pdu, extra))


def element(number, value):
    return struct.pack("<HHL", 0, number, len(value)) + value


def us(number, value):
    return element(number, struct.pack("<H", value))


def ui(number, value):
    data = value.encode()
    return element(number, data + b"\0" * (len(data) % 2))


def command(*elements):
    body = b"".join(elements)
    return element(0, struct.pack("<L", len(body))) + body


def store_rq(uid="1.2.3.4", *, sop_class=CT, message=1):
    return command(
        ui(0x0002, sop_class),
        us(0x0100, 0x0001),
        us(0x0110, message),
        us(0x0700, 0),
        us(0x0800, 1),
        ui(0x1000, uid),
    )


def echo_rq(message=1):
    return command(ui(0x0002, ECHO), us(0x0100, 0x0030), us(0x0110, message), us(0x0800, 0x0101))


def pdv(context, control, data):
    return struct.pack(">LBB", len(data) + 2, context, control) + data


def p_data(*pdvs):
    return pdu(0x04, b"".join(pdvs))


def store_message(uid="1.2.3.4", data=b"\x08\x00\x05\x00CS\x00\x00", *, context=1, message=1, size=16000):
    out = p_data(pdv(context, 3, store_rq(uid, message=message)))
    pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    for number, piece in enumerate(pieces, start=1):
        out += p_data(pdv(context, 2 if number == len(pieces) else 0, piece))
    return out


RELEASE_RQ = pdu(0x05, bytes(4))
ABORT = pdu(0x07, bytes(4))


class Parrot:
    """A peer on a raw socket that sends what the test gives it."""

    def __init__(self, port, timeout=10.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.socket.sendall(data)

    def read(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                break
            data += piece
        return data

    def read_pdu(self):
        """Return (kind, content), or (None, b"") at the end of the connection."""
        try:
            header = self.read(6)
        except ConnectionError:
            return None, b""
        if len(header) < 6:
            return None, b""
        kind, length = struct.unpack(">BxL", header)
        return kind, self.read(length)

    def associate(self, *arguments, **named):
        self.send(associate_rq(*arguments, **named))
        kind, content = self.read_pdu()
        return kind, content

    def read_response(self):
        """Return the elements of a response's command set, by element number."""
        kind, content = self.read_pdu()
        assert kind == 0x04, (kind, content)
        return elements(content[6:])

    def release(self):
        self.send(RELEASE_RQ)
        return self.read_pdu()[0]

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def elements(data):
    found = {}
    at = 0
    while at < len(data):
        _, number, length = struct.unpack_from("<HHL", data, at)
        found[number] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def accepted(content):
    """Return {context id: (result, transfer syntax)} of an A-ASSOCIATE-AC."""
    found = {}
    at = 68
    while at < len(content):
        kind, length = struct.unpack_from(">BxH", content, at)
        if kind == 0x21:
            body = content[at + 4 : at + 4 + length]
            found[body[0]] = (body[2], body[8:].decode())
        at += 4 + length
    return found


def until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def descriptors_open():
    return len(list(Path("/proc/self/fd").iterdir()))
