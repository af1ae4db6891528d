"""Decode text by SpecificCharacterSet (PS3.3 Section C.12.1.1.2, PS3.5 Section 6.1).

Decoding never fails: bytes outside the repertoire are replaced, and reported to the caller.
"""

import re
from dataclasses import dataclass

ESC = b"\x1b"

# PS3.3 Tables C.12-2 to C.12-5: registration number -> Python's codec of text before any escape sequence.
# 87 and 159 begin with an escape sequence only.
_REGISTERED = {
    6: "ascii",
    13: "shift_jis",
    58: "gb2312",
    87: "ascii",
    100: "latin_1",
    101: "iso8859_2",
    109: "iso8859_3",
    110: "iso8859_4",
    126: "iso8859_7",
    127: "iso8859_6",
    138: "iso8859_8",
    144: "iso8859_5",
    148: "iso8859_9",
    149: "euc_kr",
    159: "ascii",
    166: "tis_620",
    192: "utf_8",
    203: "iso8859_15",
}
_NAMED = {"GB18030": "gb18030", "GBK": "gbk"}
# Misspellings that devices send.
_MISNAMED = {"ISO 2022 GBK": "gbk", "ISO 2022 58": "gb2312", "UTF-8": "utf_8", "UTF8": "utf_8"}

# PS3.3 Tables C.12-3 and C.12-4: the bytes behind ESC -> the codec of code element G1.
_TO_G1 = {
    b")I": "shift_jis",
    b"-A": "latin_1",
    b"-B": "iso8859_2",
    b"-C": "iso8859_3",
    b"-D": "iso8859_4",
    b"-F": "iso8859_7",
    b"-G": "iso8859_6",
    b"-H": "iso8859_8",
    b"-L": "iso8859_5",
    b"-M": "iso8859_9",
    b"-T": "tis_620",
    b"-b": "iso8859_15",
    b"$)A": "gb2312",
    b"$)C": "euc_kr",
}
_TO_ASCII = (b"(B", b"(J")  # G0 back to one byte a character; G1 stays as it is
_TO_DOUBLE_BYTE = (b"$B", b"$(D")  # G0 to JIS X 0208 or 0212, which Python's codec does by itself
_DOUBLE_BYTE_CODEC = "iso2022_jp_2"

# Code extensions end at these (PS3.5 Section 6.1.2.5.3): line ends, values, and the parts of a name.
TEXT_DELIMITERS = re.compile(rb"[\t\n\f\r\\]")
NAME_DELIMITERS = re.compile(rb"[\t\n\f\r\\^=]")

_SPELLED = re.compile(r"(?:ISO_IR|ISO 2022 IR) (\d+)")
_MISSPELLED = re.compile(r"ISO[ _-]?(?:2022[ _-]?)?IR[ _-]?(\d+)")
_SHOWN = 40  # characters of an unknown term in a doubt: more than any defined term has


@dataclass(frozen=True, slots=True)
class Repertoire:
    """The codec that holds before any escape sequence, and doubts about SpecificCharacterSet."""

    codec: str
    doubts: tuple[str, ...] = ()


DEFAULT = Repertoire("ascii")


def _codec(term: str) -> tuple[str, str]:
    """Return the codec of a defined term, and a doubt or nothing."""
    spelled = _SPELLED.fullmatch(term)
    if spelled and (codec := _REGISTERED.get(int(spelled[1]))):
        return codec, ""
    if not term or term in _NAMED:
        return _NAMED.get(term, "ascii"), ""
    wanted = term.upper()
    misspelled = _MISSPELLED.fullmatch(wanted)
    codec = (_REGISTERED.get(int(misspelled[1])) if misspelled else None) or _MISNAMED.get(wanted)
    if codec or wanted in _NAMED:
        return codec or _NAMED[wanted], f"SpecificCharacterSet {term[:_SHOWN]!r} is misspelled"
    return "ascii", f"SpecificCharacterSet {term[:_SHOWN]!r} is unknown"


def repertoire(value: bytes) -> Repertoire:
    """Read the value of SpecificCharacterSet (0008,0005). Unknown terms become the default and a doubt."""
    terms = [term.strip(" \0") for term in value.decode("latin_1").split("\\")]
    found = [_codec(term) for term in terms]
    return Repertoire(found[0][0], tuple(dict.fromkeys(doubt for _, doubt in found if doubt)))


def _plain(value: bytes, codec: str) -> tuple[str, bool]:
    try:
        return value.decode(codec), True
    except UnicodeDecodeError:
        # Latin-1 for an undeclared repertoire: every byte is a character there, so that nothing is lost.
        return value.decode("latin_1" if codec == "ascii" else codec, "replace"), False


def decode(value: bytes, initial: Repertoire, delimiters: re.Pattern[bytes]) -> tuple[str, bool]:
    """Decode a value; return the text, and whether all bytes were in their repertoire.

    Escape sequences (ISO 2022, PS3.5 Section 6.1.2.5) are followed whether they are declared or not. After a
    delimiter the initial repertoire holds again.
    """
    if ESC not in value:
        return _plain(value, initial.codec)
    first, *pieces = value.split(ESC)
    decoded = [_plain(first, initial.codec)]
    right = initial.codec
    for piece in pieces:
        if piece.startswith(_TO_DOUBLE_BYTE):
            decoded.append(_plain(ESC + piece, _DOUBLE_BYTE_CODEC))
            continue
        escape = piece[: 3 if piece[:1] == b"$" else 2]
        known = escape in _TO_G1 or escape in _TO_ASCII
        right = _TO_G1.get(escape, right)
        text = piece[len(escape) :] if known else piece
        end = delimiters.search(text)
        cut = end.start() if end else len(text)
        head, good = _plain(text[:cut], right)
        decoded.append((head, good and known))
        if end:
            right = initial.codec
            decoded.append(_plain(text[cut:], right))
    return "".join(text for text, _ in decoded), all(good for _, good in decoded)
