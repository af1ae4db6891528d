"""Bounds on an association request before pynetdicom decodes it (PS3.8 Section 9.3.2)."""

import struct
from collections.abc import Iterator

# PS3.8 9.3.2.2: context ids are the odd numbers of one byte, each at most once.
CONTEXTS = 128

# There are 60 transfer syntaxes; who proposes more in one context is up to no good.
SYNTAXES = 128

# Role selection and extended negotiation come once for each SOP Class, and there are fewer than 300 of them.
USER_ITEMS = 512

# Protocol version, reserved, titles, reserved.
_FIXED_LENGTH = 68
_ITEM = struct.Struct(">BxH")
_CONTEXT_FIXED_LENGTH = 4

APPLICATION_CONTEXT = 0x10
PRESENTATION_CONTEXT = 0x20
TRANSFER_SYNTAX = 0x40
USER_INFORMATION = 0x50


class Unacceptable(ValueError):
    """An association request that is malformed or beyond bounds."""


def check(body: bytes) -> None:
    """Check items of an A-ASSOCIATE-RQ's body against their bounds and each other. Raises Unacceptable."""
    if len(body) < _FIXED_LENGTH:
        raise Unacceptable("shorter than its fixed fields")
    items = list(_items(body[_FIXED_LENGTH:]))
    contexts = [content for kind, content in items if kind == PRESENTATION_CONTEXT]
    if len(contexts) > CONTEXTS:
        raise Unacceptable(f"{len(contexts)} presentation contexts; at most {CONTEXTS} are possible")
    for context in contexts:
        _check_context(context)
    ids = {context[0] for context in contexts}
    if len(ids) < len(contexts):
        raise Unacceptable("presentation context ids that are not unique")
    for kind, content in items:
        if kind == USER_INFORMATION and len(list(_items(content))) > USER_ITEMS:
            raise Unacceptable(f"more than {USER_ITEMS} user information items")


def _check_context(context: bytes) -> None:
    if len(context) < _CONTEXT_FIXED_LENGTH or not context[0] % 2:
        raise Unacceptable("a presentation context without an odd id")
    kinds = [kind for kind, _ in _items(context[_CONTEXT_FIXED_LENGTH:])]
    if not 0 < kinds.count(TRANSFER_SYNTAX) <= SYNTAXES:
        raise Unacceptable(f"{kinds.count(TRANSFER_SYNTAX)} transfer syntaxes; 1 to {SYNTAXES} are allowed")


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(content):
        if position + _ITEM.size > len(content):
            raise Unacceptable("an item's header is cut off")
        kind, length = _ITEM.unpack_from(content, position)
        position += _ITEM.size
        if position + length > len(content):
            raise Unacceptable(f"item {kind:02X} is longer than what holds it")
        yield kind, content[position : position + length]
        position += length
