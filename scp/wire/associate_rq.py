"""An A-ASSOCIATE-RQ, read tolerantly and encoded again for pynetdicom (PS3.8 Section 9.3.2, PS3.7 D.3.3).

pynetdicom raises for the first field that is not as in the standard, which would abort the association. Here
fields that cannot be understood are left out and logged, and presentation contexts that cannot be read are
rejected one by one. DCMTK and Orthanc accept such requests.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# PS3.8 Table 9-11: protocol version, reserved, titles, reserved.
_FIXED = struct.Struct(">H2x16s16s32x")
# The titles and the bytes after them in the body of an A-ASSOCIATE-RQ; the A-ASSOCIATE-AC repeats them (PS3.8
# Table 9-17).
REPEATED_FIELDS = slice(4, _FIXED.size)
_ITEM = struct.Struct(">BxH")
_LENGTH = struct.Struct(">H")
_MAXIMUM_LENGTH_VALUE = struct.Struct(">L")

# PS3.8 Table 9-11: an implementation of this version "shall only test that bit 0 is set".
VERSION_1 = 0x0001

# PS3.8 Tables 9-12 to 9-16.
APPLICATION_CONTEXT = 0x10
PRESENTATION_CONTEXT = 0x20
# The item type of an answer; DCMTK accepts it in a request too.
_ANSWERED_CONTEXT = 0x21
ABSTRACT_SYNTAX = 0x30
TRANSFER_SYNTAX = 0x40
USER_INFORMATION = 0x50

# PS3.8 Section D.1 and PS3.7 Section D.3.3.
MAXIMUM_LENGTH = 0x51
OPERATIONS_WINDOW = 0x53
ROLE_SELECTION = 0x54
VERSION_NAME = 0x55
EXTENDED_NEGOTIATION = 0x56
USER_IDENTITY = 0x58
# Items without use here. Not to answer such an item means not to support it (PS3.7 Section D.3.3.3 to .6).
_UNUSED = {
    0x52: "Implementation Class UID",
    0x57: "SOP Class Common Extended Negotiation",
}

# PS3.8 Section A.2.1; any other name is treated alike.
_DICOM_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"

# PS3.8 Section 9.3.2.2: context ids are the odd numbers of one byte. Some callers use even ones, for which
# free odd ones are used.
MAX_CONTEXTS = 128
# There are 60 transfer syntaxes; further ones of a context are not read.
MAX_SYNTAXES = 128
# PS3.5 Section 9.1.
_UID_LENGTH = 64
# PS3.7 Section D.3.3.2.3.
_VERSION_NAME_LENGTH = 16
# PS3.7 Table D.3-12: the services of PS3.4 define up to six bytes.
_EXTENDED_LENGTH = 64
# PS3.7 Table D.3-7: operations invoked, operations performed.
_WINDOW_LENGTH = 4
# A Kerberos ticket or SAML assertion has some kilobytes; a longer one is never verified.
IDENTITY_LENGTH = 16 * 1024

# The maximum PDU length of a caller that gives none: what DCMTK and dcm4che offer.
DEFAULT_MAXIMUM = 16384
# A shorter PDU has no room for two bytes of a message (PS3.8 Section 9.3.5.1): such a value is ignored.
SMALLEST_MAXIMUM = 8

# PS3.7 Table D.3-14: user name to JSON Web Token. A type that is never verified here is that of Kerberos.
_IDENTITY_TYPES = range(1, 6)
_NEVER_VERIFIED = 3

# Stands for an abstract or transfer syntax that cannot be read. It is not a UID, so it is never supported.
UNREADABLE = "unreadable"
# Stands for an AE title that pynetdicom would refuse.
_UNTITLED = b"UNTITLED"

# Enough to see what is wrong: a request can hold thousands of bad items.
MAX_ODDITIES = 10


class UnreadableRequest(ValueError):
    """Raised when nothing of an association request can be read."""


class Titles(NamedTuple):
    """The AE titles of a request; empty where the field is blank."""

    calling: str
    called: str


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An association request as it was understood."""

    titles: Titles
    is_version_1: bool
    # The request encoded again, as pynetdicom can read it.
    encoded: bytes
    # Presentation context ids as proposed, with those in `encoded`.
    contexts: Mapping[int, int]
    # Titles and reserved bytes that the answer repeats (PS3.8 Table 9-17).
    repeated: bytes
    # What was left out or changed, for the log.
    oddities: tuple[str, ...]

    def proposed_id(self, own: int) -> int:
        """Return the presentation context id that the caller proposed."""
        if self.contexts.get(own) == own:
            return own
        return next(proposed for proposed, other in self.contexts.items() if other == own)


def parse_titles(body: bytes) -> Titles:
    """Return the AE titles of an A-ASSOCIATE-RQ's body, nothing else is read. Raises UnreadableRequest."""
    if len(body) < _FIXED.size:
        raise UnreadableRequest(f"{len(body)} bytes; the fixed fields alone have {_FIXED.size}")
    _, called, calling = _FIXED.unpack_from(body)
    return Titles(_title(calling), _title(called))


def parse_request(body: bytes) -> AssociateRequest:
    """Read the body of an A-ASSOCIATE-RQ. Raises UnreadableRequest."""
    titles = parse_titles(body)
    reader = _Reader()
    reader.read(body[_FIXED.size :])
    version, called, calling = _FIXED.unpack_from(body)
    for name, title, text in (("called", called, titles.called), ("calling", calling, titles.calling)):
        if not text or title.strip(b" ") != _title_for_pynetdicom(text).strip(b" "):
            reader.note(f"{name} AE title {title!r}")
    ids = _odd_ids(list(reader.contexts))
    if len(ids) < len(reader.contexts):
        reader.note(f"more than {MAX_CONTEXTS} presentation contexts")
    is_version_1 = bool(version & VERSION_1)
    encoded = _FIXED.pack(
        is_version_1, _title_for_pynetdicom(titles.called), _title_for_pynetdicom(titles.calling)
    )
    encoded += _item(APPLICATION_CONTEXT, _DICOM_APPLICATION_CONTEXT)
    encoded += b"".join(reader.contexts[proposed].encoded(own) for proposed, own in ids.items())
    encoded += _item(USER_INFORMATION, reader.user_items())
    return AssociateRequest(
        titles, is_version_1, encoded, ids, body[REPEATED_FIELDS], tuple(reader.oddities)[:MAX_ODDITIES]
    )


@dataclass(slots=True)
class _Context:
    abstract_syntax: str = ""
    transfer_syntaxes: list[str] = field(default_factory=list)

    def encoded(self, number: int) -> bytes:
        content = bytes((number, 0, 0, 0)) + _item(
            ABSTRACT_SYNTAX, (self.abstract_syntax or UNREADABLE).encode()
        )
        for syntax in list(dict.fromkeys(self.transfer_syntaxes))[:MAX_SYNTAXES] or [UNREADABLE]:
            content += _item(TRANSFER_SYNTAX, syntax.encode())
        return _item(PRESENTATION_CONTEXT, content)


class _Reader:
    """Collects what can be read of the variable items, and their oddities."""

    def __init__(self) -> None:
        self.contexts: dict[int, _Context] = {}
        self.oddities: dict[str, None] = {}
        self._maximum_length: int | None = None
        self._roles: dict[str, tuple[bool, bool]] = {}
        self._identity = b""
        self._window = b""
        self._extended: dict[str, bytes] = {}

    def note(self, what: str) -> None:
        """Note an oddity for the log, once."""
        if len(self.oddities) < MAX_ODDITIES:
            self.oddities[what] = None

    def read(self, content: bytes) -> None:
        """Read all items. Raises UnreadableRequest where an item is too long before any context."""
        is_cut_off = False
        for kind, value, is_whole in self._items(content):
            # The content of an item that is too long is read as far as it goes.
            is_cut_off = is_cut_off or not is_whole
            if kind in (PRESENTATION_CONTEXT, _ANSWERED_CONTEXT):
                self._read_context(value)
            elif kind == USER_INFORMATION:
                self._read_user_information(value)
            elif kind != APPLICATION_CONTEXT:
                self.note(f"unknown item {kind:02X}")
        if is_cut_off and not self.contexts:
            raise UnreadableRequest("no presentation context before an item longer than the request")

    def user_items(self) -> bytes:
        """Return the user information that pynetdicom needs, with defaults for what is missing."""
        maximum = DEFAULT_MAXIMUM if self._maximum_length is None else self._maximum_length
        items = _item(MAXIMUM_LENGTH, _MAXIMUM_LENGTH_VALUE.pack(maximum))
        proposed = {context.abstract_syntax for context in self.contexts.values()}
        for uid, roles in self._roles.items():
            if uid in proposed:
                items += _item(ROLE_SELECTION, _LENGTH.pack(len(uid)) + uid.encode() + bytes(roles))
        for uid, options in self._extended.items():
            if uid in proposed:
                items += _item(EXTENDED_NEGOTIATION, _LENGTH.pack(len(uid)) + uid.encode() + options)
        return items + self._window + self._identity

    def _items(self, content: bytes) -> Iterator[tuple[int, bytes, bool]]:
        """Yield type, value, and whether the value is whole (PS3.8 Section 9.3.1)."""
        position, end = 0, len(content)
        while position + _ITEM.size <= end:
            kind, length = _ITEM.unpack_from(content, position)
            position += _ITEM.size
            is_whole = position + length <= end
            if not is_whole:
                self.note(f"item {kind:02X} is longer than the item around it")
            yield kind, content[position : position + length], is_whole
            position += length
        if position < end:
            self.note(f"{end - position} bytes after the items")

    def _read_context(self, content: bytes) -> None:
        """Read a presentation context (PS3.8 Table 9-13)."""
        if not content:
            self.note("a presentation context without an id")
            return
        number, context = content[0], _Context()
        if number in self.contexts:
            self.note(f"presentation context {number} is proposed twice; the first counts")
            return
        self.contexts[number] = context
        if not number % 2:
            self.note(f"presentation context id {number} is even")
        for kind, value, is_whole in self._items(content[4:]):
            uid = _uid(value) if is_whole else ""  # a part of a UID is another UID
            if kind == ABSTRACT_SYNTAX and not context.abstract_syntax:
                context.abstract_syntax = uid
            elif kind == TRANSFER_SYNTAX and uid:
                context.transfer_syntaxes.append(uid)
            elif kind not in (ABSTRACT_SYNTAX, TRANSFER_SYNTAX):
                self.note(f"unknown item {kind:02X} in presentation context {number}")
        if not context.abstract_syntax or not context.transfer_syntaxes:
            missing = "transfer" if context.abstract_syntax else "abstract"
            self.note(f"presentation context {number} has no {missing} syntax that can be read")

    def _read_user_information(self, content: bytes) -> None:
        """Read the user data sub-items (PS3.7 Section D.3.3); a second one of a type is ignored."""
        for kind, value, is_whole in self._items(content):
            if kind == USER_IDENTITY:  # never left out: the caller is to be verified
                self._identity = self._identity or self._read_identity(value)
            elif kind in _UNUSED or not is_whole:
                continue
            elif kind == MAXIMUM_LENGTH:
                self._read_maximum_length(value)
            elif kind == OPERATIONS_WINDOW:
                self._read_window(value)
            elif kind == ROLE_SELECTION:
                self._read_role(value)
            elif kind == EXTENDED_NEGOTIATION:
                self._read_extended(value)
            elif kind == VERSION_NAME:
                if len(value) > _VERSION_NAME_LENGTH or not _printable(value):
                    self.note(f"implementation version name {value[:64]!r}")
            else:
                self.note(f"unknown user item {kind:02X}")

    def _read_window(self, value: bytes) -> None:
        """Read the asynchronous operations window (PS3.7 Table D.3-7)."""
        if len(value) == _WINDOW_LENGTH:
            self._window = self._window or _item(OPERATIONS_WINDOW, value)
        else:
            self.note(f"asynchronous operations window {value[:64]!r}")

    def _read_maximum_length(self, value: bytes) -> None:
        """Read the maximum length received (PS3.8 Section D.1); 0: no limit."""
        if len(value) < _MAXIMUM_LENGTH_VALUE.size:
            self.note(f"maximum length {value!r}")
        elif self._maximum_length is None:
            (length,) = _MAXIMUM_LENGTH_VALUE.unpack_from(value)
            if 0 < length < SMALLEST_MAXIMUM:
                self.note(f"maximum length {length}")
            self._maximum_length = length if length >= SMALLEST_MAXIMUM else 0

    def _read_role(self, value: bytes) -> None:
        """Read a role selection (PS3.7 Table D.3-9). A caller that proposes no role has the default one."""
        uid, roles = "", b""
        if len(value) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(value)
            end = _LENGTH.size + length
            uid, roles = _uid(value[_LENGTH.size : end]), value[end : end + 2]
        scu, scp = (bool(role) for role in roles) if len(roles) == 2 else (False, False)  # noqa: PLR2004
        if not uid or not (scu or scp) or max(roles) > 1:
            self.note(f"role selection {value[:64]!r}")
        if uid and (scu or scp):
            self._roles.setdefault(uid, (scu, scp))

    def _read_extended(self, value: bytes) -> None:
        """Read the options of a SOP Class (PS3.7 Table D.3-12)."""
        uid, options = _field(value)
        sop_class = _uid(uid or b"")
        if not sop_class or not 0 < len(options) <= _EXTENDED_LENGTH:
            self.note(f"SOP Class extended negotiation {value[:64]!r}")
        else:
            self._extended.setdefault(sop_class, options)

    def _read_identity(self, value: bytes) -> bytes:
        """Return a user identity item (PS3.7 Table D.3-14) that pynetdicom can read.

        An item that cannot be read, or of an unknown type, becomes one that is never verified.
        """
        head, (primary, rest) = value[:2], _field(value[2:])
        secondary = _field(rest)[0] or b""
        is_readable = primary is not None and len(primary) + len(secondary) <= IDENTITY_LENGTH
        if not is_readable or head[0] not in _IDENTITY_TYPES:
            self.note(f"user identity {head!r}")
            head, primary, secondary = bytes((_NEVER_VERIFIED, 0)), b"", b""
        content = bytes((head[0], bool(head[1])))
        for text in (primary or b"", secondary):
            content += _LENGTH.pack(len(text)) + text
        return _item(USER_IDENTITY, content)


def _field(content: bytes) -> tuple[bytes | None, bytes]:
    """Return a value that follows its length, None where it is not whole, and the bytes after it."""
    if len(content) < _LENGTH.size:
        return None, b""
    end = _LENGTH.size + int(_LENGTH.unpack_from(content)[0])
    return (content[_LENGTH.size : end], content[end:]) if end <= len(content) else (None, b"")


def _odd_ids(proposed: list[int]) -> dict[int, int]:
    """Return an odd id for each proposed id: itself where it is odd, a free one for an even one."""
    free = (number for number in range(1, 256, 2) if number not in proposed)
    ids = ((number, number if number % 2 else next(free, 0)) for number in proposed)
    return {number: own for number, own in ids if own}


def _title(value: bytes) -> str:
    """Return an AE title (PS3.5 Section 6.2, AE) as text."""
    value = _text(value)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return "".join(character if character.isprintable() else "?" for character in text).strip()


def _text(value: bytes) -> bytes:
    """Return the bytes before the first NUL, which some pad with, without blanks around them."""
    return value.split(b"\0", maxsplit=1)[0].strip(b" ")


def _title_for_pynetdicom(title: str) -> bytes:
    """Return a title that pynetdicom accepts. It is not used."""
    value = title.encode("ascii", "replace")[:16]
    return (_UNTITLED if not value or b"\\" in value else value).ljust(16)


def _uid(value: bytes) -> str:
    """Return a UID without the padding that PS3.8 Annex F forbids; empty where it cannot be one."""
    value = _text(value)
    return value.decode("ascii") if len(value) <= _UID_LENGTH and _printable(value) else ""


def _printable(value: bytes) -> bool:
    return value.isascii() and value.decode("ascii").isprintable()


def _item(kind: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, len(content)) + content
