"""A fast DICOM sender on a raw socket, for load, and for faults that the senders of toolkits do not make.

An object is encoded once into the bytes of its PDUs. For each instance only its UID is replaced in place, so
that benchmarks measure the receiver.
"""

import io
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from support.dicom import CT_IMAGE_STORAGE, ROOT, encoded, sample

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
# PS3.8 Section 9.3: PDU types.
ACCEPT, DATA, RELEASE_REQUEST, RELEASE, ABORT = 0x02, 0x04, 0x05, 0x06, 0x07
# PS3.8 Section 9.3.5.1: message control header.
COMMAND, LAST = 0x01, 0x02
CONTEXT_ID = 1
# PDU and PDV headers: type, length; length, context, control.
HEADER = struct.Struct(">BxLLBB")
# The daemon offers 1 MB; more in one write gains nothing.
LARGEST_PDU = 1024 * 1024

# The last component of an instance's UID; all have the same length.
FIRST_NUMBER = 1_000_000_000
CT_SIZE = 526 * 1000
SMALL_SIZE = 14 * 1000
# Just too large for the journal of small objects.
LARGE_SIZE = 68 * 1000


@dataclass(frozen=True)
class Template:
    """A data set that is sent many times, each time as another instance of one study and series."""

    study: str
    series: str
    content: bytes

    def uid(self, number: int) -> str:
        """Return the SOP Instance UID of instance `number`."""
        return f"{self.series}.{FIRST_NUMBER + number}"

    def data_set(self, number: int) -> bytes:
        """Return the data set of instance `number`, as it is sent."""
        return self.content.replace(self.uid(0).encode(), self.uid(number).encode())


def template(size: int = SMALL_SIZE, study: int = 1) -> Template:
    """Return a CT instance of `size` bytes, with the header of a scanner (pydicom's CT_small)."""
    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    uid = f"{ROOT}.{study}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid, f"{uid}.1"
    dataset.SOPInstanceUID = Template(uid, f"{uid}.1", b"").uid(0)
    dataset.PatientID = f"P{study}"
    del dataset.DataSetTrailingPadding
    dataset.PixelData = b""
    padding = max(0, size - len(encoded(dataset))) // 2 * 2
    dataset.PixelData = bytes(range(256)) * (padding // 256) + bytes(padding % 256)
    return Template(uid, f"{uid}.1", encoded(dataset))


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def request(
    calling: str, called: str, syntax: str = ExplicitVRLittleEndian, sop_class: str = CT_IMAGE_STORAGE
) -> bytes:
    """Return an A-ASSOCIATE-RQ for one storage SOP Class (PS3.8 Section 9.3.2)."""
    context = bytes((CONTEXT_ID, 0, 0, 0)) + _item(0x30, sop_class.encode()) + _item(0x40, syntax.encode())
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, f"{ROOT}.9".encode())
    body = struct.pack(">H2x16s16s32x", 1, called.ljust(16).encode(), calling.ljust(16).encode())
    body += _item(0x10, APPLICATION_CONTEXT) + _item(0x20, context) + _item(0x50, user)
    return struct.pack(">BxL", 1, len(body)) + body


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def command(uid: str, message: int = 1, sop_class: str = CT_IMAGE_STORAGE) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 Section 9.3.1.1)."""
    uids = [value.encode() + b"\0" * (len(value) % 2) for value in (sop_class, uid)]
    number = struct.Struct("<H").pack
    body = _element(0x0002, uids[0]) + _element(0x0100, number(1)) + _element(0x0110, number(message))
    body += _element(0x0700, number(0)) + _element(0x0800, number(1)) + _element(0x1000, uids[1])
    return _element(0x0000, struct.pack("<L", len(body))) + body


class Message:
    """The bytes of one C-STORE-RQ; each of `parts` is sent by one write."""

    def __init__(self, source: Template, max_pdu: int, *, whole_pdus: bool = True) -> None:
        self._source = source
        self.wire = bytearray()
        ends: list[int] = []
        for content, kind in ((command(source.uid(0)), COMMAND), (source.content, 0)):
            room = (min(max_pdu or LARGEST_PDU, LARGEST_PDU) - 6) // 2 * 2
            for at in range(0, len(content), room):
                fragment = content[at : at + room]
                last = LAST if at + room >= len(content) else 0
                self.wire += HEADER.pack(DATA, len(fragment) + 6, len(fragment) + 2, CONTEXT_ID, kind | last)
                ends += [] if whole_pdus else [len(self.wire)]
                self.wire += fragment
                ends.append(len(self.wire))
        self.parts = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        self._places = list(_places(self.wire, source.uid(0).encode()))

    def become(self, number: int) -> str:
        """Change it to instance `number`; return its SOP Instance UID."""
        uid = self._source.uid(number)
        for place in self._places:
            self.wire[place : place + len(uid)] = uid.encode()
        return uid


def _places(wire: bytes | bytearray, text: bytes) -> Iterator[int]:
    at = wire.find(text)
    while at >= 0:
        yield at
        at = wire.find(text, at + 1)


class Refused(ConnectionError):
    """The peer refused or aborted the association."""


class Sender:
    """An association that stores instances.

    With `nagle` it behaves as DCMTK's storescu does unless told otherwise: Nagle's algorithm on, and each PDU
    written as header and body.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        calling: str = "SENDER",
        called: str = "ANY-SCP",
        nagle: bool = False,
        timeout: float = 60,
        syntax: str = ExplicitVRLittleEndian,
        sop_class: str = CT_IMAGE_STORAGE,
    ) -> None:
        self._nagle = nagle
        self.socket = socket.create_connection(address, timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)
        self.socket.sendall(request(calling, called, syntax, sop_class))
        self._sop_class = sop_class
        kind, body = self._read()
        if kind != ACCEPT:
            self.close()
            raise Refused(f"PDU type {kind:02x} {body[:8].hex()}")
        self.max_pdu = _accepted_length(body)

    def message(self, source: Template) -> Message:
        """Return the message that sends this template to this peer."""
        return Message(source, self.max_pdu, whole_pdus=not self._nagle)

    def store(self, message: Message) -> int:
        """Send an instance as it is; return the status of its response."""
        view = memoryview(message.wire)
        for part in message.parts:
            self.socket.sendall(view[part])
        return self.response()

    def send(self, uid: str, data_set: bytes) -> int:
        """Send any data set as one instance; return the status of its response."""
        for content, kind in ((command(uid, sop_class=self._sop_class), COMMAND), (data_set, 0)):
            room = min(self.max_pdu or LARGEST_PDU, LARGEST_PDU) - 6
            for at in range(0, max(len(content), 1), room):
                fragment = content[at : at + room]
                last = LAST if at + room >= len(content) else 0
                head = HEADER.pack(DATA, len(fragment) + 6, len(fragment) + 2, CONTEXT_ID, kind | last)
                self.socket.sendall(head + fragment)
        return self.response()

    def response(self) -> int:
        """Wait for a C-STORE-RSP; return its status."""
        content = b""
        while True:
            kind, body = self._read()
            if kind != DATA:
                raise Refused(f"PDU type {kind:02x} {body[:8].hex()}")
            content += body[6:]
            if body[5] & LAST:
                return _status(content)

    def release(self) -> None:
        """End the association as it should be (PS3.8 Section 7.2)."""
        self.socket.sendall(struct.pack(">BxL4x", RELEASE_REQUEST, 4))
        self._read()
        self.close()

    def abort(self) -> None:
        """Send A-ABORT (PS3.8 Section 9.3.8) and close."""
        self.socket.sendall(struct.pack(">BxL4x", ABORT, 4))
        self.close()

    def close(self) -> None:
        """Close the connection without release or abort."""
        self.socket.close()

    def _read(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            read = self.socket.recv(size - len(content))
            if not read:
                raise Refused("connection closed")
            content += read
        return content


def _accepted_length(body: bytes) -> int:
    """Return the maximum length of an A-ASSOCIATE-AC. Raises Refused where its context is not accepted."""
    file, length = io.BytesIO(body[68:]), 0
    while header := file.read(4):
        kind, size = struct.unpack(">BxH", header)
        if kind == 0x50:
            continue  # its sub-items follow
        content = file.read(size)
        if kind == 0x21 and content[2]:
            raise Refused(f"presentation context result {content[2]}")
        if kind == 0x51:
            (length,) = struct.unpack(">L", content)
    return int(length)


def _status(content: bytes) -> int:
    at = 0
    while at < len(content):
        group, element, length = struct.unpack_from("<HHL", content, at)
        if (group, element) == (0x0000, 0x0900):
            return int(struct.unpack_from("<H", content, at + 8)[0])
        at += 8 + length
    raise ValueError("response without a status")


def send(
    address: tuple[str, int],
    source: Template,
    numbers: Iterator[int] | range,
    answered: Callable[[int, int], None] = lambda _number, _status: None,
    **options: object,
) -> None:
    """Send these instances over one association; call `answered` with each number and status."""
    sender = Sender(address, **options)  # type: ignore[arg-type]
    try:
        message = sender.message(source)
        for number in numbers:
            message.become(number)
            answered(number, sender.store(message))
        sender.release()
    finally:
        sender.close()
