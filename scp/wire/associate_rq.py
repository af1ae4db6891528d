"""An A-ASSOCIATE-RQ read kindly, and written anew for pynetdicom (PS3.8 Section 9.3.2, PS3.7 Section D.3.3).

pynetdicom raises for the first field that is not as the standard has it, which would abort the association.
Here what cannot be understood is left out and told, and a presentation context that cannot be read is
rejected as such. DCMTK and Orthanc serve the requests that are mended here.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# PS3.8 Table 9-11: protocol version, reserved, titles, reserved; the titles and what follows are repeated in
# the answer (Table 9-17).
_FIXED = struct.Struct(">H2x16s16s32x")
_REPEATED = slice(4, _FIXED.size)
_ITEM = struct.Struct(">BxH")
_LENGTH = struct.Struct(">H")
_MAXIMUM_LENGTH_VALUE = struct.Struct(">L")

# PS3.8 Table 9-11: who knows only this version "shall only test that bit 0 is set".
VERSION_1 = 0x0001

# PS3.8 Tables 9-12 to 9-16.
APPLICATION_CONTEXT = 0x10
PRESENTATION_CONTEXT = 0x20
# The item of an answer; DCMTK reads it in a request too.
_ANSWERED_CONTEXT = 0x21
ABSTRACT_SYNTAX = 0x30
TRANSFER_SYNTAX = 0x40
USER_INFORMATION = 0x50

# PS3.8 Section D.1 and PS3.7 Section D.3.3.
MAXIMUM_LENGTH = 0x51
ROLE_SELECTION = 0x54
VERSION_NAME = 0x55
USER_IDENTITY = 0x58
# What we have no use for. Who does not answer such an item does not support it (PS3.7 Section D.3.3.3 to .6).
_UNUSED = {
    0x52: "Implementation Class UID",
    0x53: "Asynchronous Operations Window",
    0x56: "SOP Class Extended Negotiation",
    0x57: "SOP Class Common Extended Negotiation",
}

# PS3.8 Section A.2.1; any other name is served by the same rules.
_DICOM_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"

# PS3.8 Section 9.3.2.2: context ids are the odd numbers of one byte. Even ones are seen.
# Here they take the odd ones that are free.
CONTEXTS = 128
# There are 60 transfer syntaxes; more in one context are not looked at.
SYNTAXES = 128
# PS3.5 Section 9.1.
_UID_LENGTH = 64
# PS3.7 Section D.3.3.2.3.
_VERSION_NAME_LENGTH = 16
# A Kerberos ticket or SAML assertion has some kilobytes; one that is longer is verified by nobody.
IDENTITY_LENGTH = 16 * 1024

# For a caller that does not say how long a P-DATA-TF PDU may be: what DCMTK and dcm4che offer.
USUAL_MAXIMUM = 16384
# A PDU below this has no room for two bytes of a message (PS3.8 Section 9.3.5.1); such a value means nothing.
LEAST_MAXIMUM = 8

# PS3.7 Table D.3-14: user name to JSON Web Token. Other kinds cannot be verified, as Kerberos tickets here.
_IDENTITY_TYPES = range(1, 6)
_NEVER_VERIFIED = 3

# Stands for an abstract or transfer syntax that cannot be read: no UID, so that nobody supports it.
UNREADABLE = "unreadable"
# Stands for an AE title that pynetdicom would not take.
_UNTITLED = b"UNTITLED"

# Enough to see what is wrong; a request can hold thousands of bad items.
MOST_ODDITIES = 10


class Unacceptable(ValueError):
    """An association request of which nothing can be read."""


class Titles(NamedTuple):
    """Who calls whom; empty where the field is blank."""

    calling: str
    called: str


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An association request as we understand it."""

    titles: Titles
    is_version_1: bool
    # For pynetdicom: the same in its narrower terms.
    encoded: bytes
    # Presentation context ids as proposed, with those in `encoded`.
    contexts: Mapping[int, int]
    # Titles and reserved bytes, which the answer repeats (PS3.8 Table 9-17).
    repeated: bytes
    # What was left out or mended, for the log.
    oddities: tuple[str, ...]

    def proposed_id(self, own: int) -> int:
        """Return the presentation context id as the caller has it."""
        if self.contexts.get(own) == own:
            return own
        return next(proposed for proposed, other in self.contexts.items() if other == own)


def read_titles(body: bytes) -> Titles:
    """Return the AE titles of an A-ASSOCIATE-RQ's body, whatever else it holds. Raises Unacceptable."""
    if len(body) < _FIXED.size:
        raise Unacceptable(f"{len(body)} bytes; the fixed fields alone have {_FIXED.size}")
    _, called, calling = _FIXED.unpack_from(body)
    return Titles(_title(calling), _title(called))


def read(body: bytes) -> AssociateRequest:
    """Read the body of an A-ASSOCIATE-RQ. Raises Unacceptable."""
    titles = read_titles(body)
    reader = _Reader()
    reader.read(body[_FIXED.size :])
    version, called, calling = _FIXED.unpack_from(body)
    for name, title, text in (("called", called, titles.called), ("calling", calling, titles.calling)):
        if not text or title.strip(b" ") != _plain(text).strip(b" "):
            reader.odd(f"{name} AE title {title!r}")
    ids = _odd_ids(list(reader.contexts))
    if len(ids) < len(reader.contexts):
        reader.odd(f"more than {CONTEXTS} presentation contexts")
    is_version_1 = bool(version & VERSION_1)
    encoded = _FIXED.pack(is_version_1, _plain(titles.called), _plain(titles.calling))
    encoded += _item(APPLICATION_CONTEXT, _DICOM_APPLICATION_CONTEXT)
    encoded += b"".join(reader.contexts[proposed].encoded(own) for proposed, own in ids.items())
    encoded += _item(USER_INFORMATION, reader.user_items())
    return AssociateRequest(
        titles, is_version_1, encoded, ids, body[_REPEATED], tuple(reader.oddities)[:MOST_ODDITIES]
    )


@dataclass(slots=True)
class _Context:
    abstract_syntax: str = ""
    transfer_syntaxes: list[str] = field(default_factory=list)

    def encoded(self, number: int) -> bytes:
        content = bytes((number, 0, 0, 0)) + _item(
            ABSTRACT_SYNTAX, (self.abstract_syntax or UNREADABLE).encode()
        )
        for syntax in list(dict.fromkeys(self.transfer_syntaxes))[:SYNTAXES] or [UNREADABLE]:
            content += _item(TRANSFER_SYNTAX, syntax.encode())
        return _item(PRESENTATION_CONTEXT, content)


class _Reader:
    """Collects what can be read of the variable items, and what is odd about them."""

    def __init__(self) -> None:
        self.contexts: dict[int, _Context] = {}
        self.oddities: dict[str, None] = {}
        self._maximum_length: int | None = None
        self._roles: dict[str, tuple[bool, bool]] = {}
        self._identity = b""

    def odd(self, what: str) -> None:
        """Note what is odd, once."""
        if len(self.oddities) < MOST_ODDITIES:
            self.oddities[what] = None

    def read(self, content: bytes) -> None:
        """Read all items. Raises Unacceptable where there is nothing but a beginning that makes no sense."""
        cut_off = False
        for kind, value, is_whole in self._items(content):
            # What a container that is too long holds can be read nevertheless.
            cut_off = cut_off or not is_whole
            if kind in (PRESENTATION_CONTEXT, _ANSWERED_CONTEXT):
                self._read_context(value)
            elif kind == USER_INFORMATION:
                self._read_user_information(value)
            elif kind != APPLICATION_CONTEXT:
                self.odd(f"unknown item {kind:02X}")
        if cut_off and not self.contexts:
            raise Unacceptable("no presentation context before an item longer than the request")

    def user_items(self) -> bytes:
        """Return the user information that pynetdicom needs: what was said, or what is usual."""
        maximum = USUAL_MAXIMUM if self._maximum_length is None else self._maximum_length
        items = _item(MAXIMUM_LENGTH, _MAXIMUM_LENGTH_VALUE.pack(maximum))
        proposed = {context.abstract_syntax for context in self.contexts.values()}
        for uid, roles in self._roles.items():
            if uid in proposed:
                items += _item(ROLE_SELECTION, _LENGTH.pack(len(uid)) + uid.encode() + bytes(roles))
        return items + self._identity

    def _items(self, content: bytes) -> Iterator[tuple[int, bytes, bool]]:
        """Yield type, value, and whether the value is whole (PS3.8 Section 9.3.1)."""
        position, end = 0, len(content)
        while position + _ITEM.size <= end:
            kind, length = _ITEM.unpack_from(content, position)
            position += _ITEM.size
            is_whole = position + length <= end
            if not is_whole:
                self.odd(f"item {kind:02X} is longer than what holds it")
            yield kind, content[position : position + length], is_whole
            position += length
        if position < end:
            self.odd(f"{end - position} bytes behind the items")

    def _read_context(self, content: bytes) -> None:
        """Read a presentation context (PS3.8 Table 9-13)."""
        if not content:
            self.odd("a presentation context without an id")
            return
        number, context = content[0], _Context()
        if number in self.contexts:
            self.odd(f"presentation context {number} is proposed twice; the first counts")
            return
        self.contexts[number] = context
        if not number % 2:
            self.odd(f"presentation context id {number} is even")
        for kind, value, is_whole in self._items(content[4:]):
            uid = _uid(value) if is_whole else ""  # half a UID is another one
            if kind == ABSTRACT_SYNTAX and not context.abstract_syntax:
                context.abstract_syntax = uid
            elif kind == TRANSFER_SYNTAX and uid:
                context.transfer_syntaxes.append(uid)
            elif kind not in (ABSTRACT_SYNTAX, TRANSFER_SYNTAX):
                self.odd(f"unknown item {kind:02X} in presentation context {number}")
        if not context.abstract_syntax or not context.transfer_syntaxes:
            missing = "transfer" if context.abstract_syntax else "abstract"
            self.odd(f"presentation context {number} has no {missing} syntax that can be read")

    def _read_user_information(self, content: bytes) -> None:
        """Read the user data sub-items (PS3.7 Section D.3.3); a second one of a kind does not count."""
        for kind, value, is_whole in self._items(content):
            if kind == USER_IDENTITY:  # never left out: it says that the caller is to be verified
                self._identity = self._identity or self._read_identity(value)
            elif kind in _UNUSED or not is_whole:
                continue
            elif kind == MAXIMUM_LENGTH:
                self._read_maximum_length(value)
            elif kind == ROLE_SELECTION:
                self._read_role(value)
            elif kind == VERSION_NAME:
                if len(value) > _VERSION_NAME_LENGTH or not _printable(value):
                    self.odd(f"implementation version name {value[:64]!r}")
            else:
                self.odd(f"unknown user item {kind:02X}")

    def _read_maximum_length(self, value: bytes) -> None:
        """Read the maximum length received (PS3.8 Section D.1); 0: none."""
        if len(value) < _MAXIMUM_LENGTH_VALUE.size:
            self.odd(f"maximum length {value!r}")
        elif self._maximum_length is None:
            (length,) = _MAXIMUM_LENGTH_VALUE.unpack_from(value)
            if 0 < length < LEAST_MAXIMUM:
                self.odd(f"maximum length {length}")
            self._maximum_length = length if length >= LEAST_MAXIMUM else 0

    def _read_role(self, value: bytes) -> None:
        """Read a role selection (PS3.7 Table D.3-9). Who proposes no role at all has the default one."""
        uid, roles = "", b""
        if len(value) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(value)
            end = _LENGTH.size + length
            uid, roles = _uid(value[_LENGTH.size : end]), value[end : end + 2]
        scu, scp = (bool(role) for role in roles) if len(roles) == 2 else (False, False)  # noqa: PLR2004
        if not uid or not (scu or scp) or max(roles) > 1:
            self.odd(f"role selection {value[:64]!r}")
        if uid and (scu or scp):
            self._roles.setdefault(uid, (scu, scp))

    def _read_identity(self, value: bytes) -> bytes:
        """Return a user identity item (PS3.7 Table D.3-14) in which pynetdicom can read everything.

        What cannot be read, or is of a type that nobody knows, becomes one that nobody verifies.
        """
        head, (primary, rest) = value[:2], _field(value[2:])
        secondary = _field(rest)[0] or b""
        is_readable = primary is not None and len(primary) + len(secondary) <= IDENTITY_LENGTH
        if not is_readable or head[0] not in _IDENTITY_TYPES:
            self.odd(f"user identity {head!r}")
            head, primary, secondary = bytes((_NEVER_VERIFIED, 0)), b"", b""
        content = bytes((head[0], bool(head[1])))
        for text in (primary or b"", secondary):
            content += _LENGTH.pack(len(text)) + text
        return _item(USER_IDENTITY, content)


def _field(content: bytes) -> tuple[bytes | None, bytes]:
    """Return a value that its length stands before, None where it is not whole, and what follows."""
    if len(content) < _LENGTH.size:
        return None, b""
    end = _LENGTH.size + int(_LENGTH.unpack_from(content)[0])
    return (content[_LENGTH.size : end], content[end:]) if end <= len(content) else (None, b"")


def _odd_ids(proposed: list[int]) -> dict[int, int]:
    """Return an odd id for each id proposed: itself where it is odd, for the even ones what is left."""
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
    """Return what stands before a NUL, which some pad with, without blanks."""
    return value.split(b"\0", maxsplit=1)[0].strip(b" ")


def _plain(title: str) -> bytes:
    """Return a title that pynetdicom takes; it is not looked at."""
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
