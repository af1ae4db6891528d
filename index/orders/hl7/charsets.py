"""MSH-18 by HL7 Table 0211: Python's codec, and DICOM's Specific Character Set (PS3.3 C.12.1.1.2)."""

import codecs
from encodings import normalize_encoding
from encodings.aliases import aliases

from index.orders.hl7.faults import BadMessage, Code

_UTF_8 = "ISO_IR 192"

CHARSETS: dict[str, tuple[str, str]] = {
    "ASCII": ("ascii", ""),
    **{
        f"8859/{part}": (f"iso8859-{part}", f"ISO_IR {ir}")
        for part, ir in (
            (1, 100),
            (2, 101),
            (3, 109),
            (4, 110),
            (5, 144),
            (6, 127),
            (7, 126),
            (8, 138),
            (9, 148),
            (15, 203),
        )
    },
    "ISO IR6": ("ascii", ""),
    "ISO IR14": ("iso2022_jp", _UTF_8),
    "ISO IR87": ("iso2022_jp", _UTF_8),
    "ISO IR159": ("iso2022_jp_2", _UTF_8),
    "GB 18030-2000": ("gb18030", "GB18030"),
    "KS X 1001": ("euc_kr", _UTF_8),
    "CNS 11643-1992": ("big5", _UTF_8),
    "BIG-5": ("big5", _UTF_8),
    "UNICODE": ("utf-8", _UTF_8),
    "UNICODE UTF-8": ("utf-8", _UTF_8),
    # DICOM's names (PS3.3 Table C.12-2), and HL7's with their parts joined, as some senders write them.
    "ISO_IR 6": ("ascii", ""),
    "ISO_IR 192": ("utf-8", _UTF_8),
    **{
        f"{name}{part}": (f"iso8859-{part}", f"ISO_IR {ir}")
        for name in ("8859-", "ISO 8859/", "ISO8859/")
        for part, ir in ((1, 100), (2, 101), (5, 144), (7, 126), (9, 148), (15, 203))
    },
}
"""By MSH-18. Where DICOM has no single set with the same characters, the order has UTF-8."""

# The codecs of Python. codecs.lookup would cache every unknown name.
_CODECS = frozenset(aliases.values())
_DICOM = {codecs.lookup(codec).name: charset for codec, charset in CHARSETS.values() if charset}
# The delimiters are these bytes in every set that MLLP can carry (MLLP Release 1, Section 2).
_DELIMITERS = "MSH|^~\\&|"

# Tried for senders that name no set: text that is valid UTF-8 is UTF-8, else Latin-1 is the most common.
_UNNAMED = (("ascii", ""), ("utf-8", _UTF_8), ("iso8859-1", "ISO_IR 100"))


def decode(message: bytes, msh_18: list[str], configured: str = "") -> tuple[str, str, str]:
    """Return the text, the codec and DICOM's name for it. Raises BadMessage naming MSH-18.

    `msh_18` is its repetitions; the last set that is not ASCII is used: its escape sequences include the
    others. A message that names only ASCII is like one that names none. `configured` overrules MSH-18.
    """
    names = [configured] if configured else [name.strip() for name in msh_18 if name.strip()]
    chosen = [found for found in map(codec_and_charset, names) if found[0] != "ascii"][-1:]
    for codec, charset in chosen or _UNNAMED:
        try:
            return message.decode(codec), codec, charset
        except UnicodeDecodeError as error:
            fault = error
    text = f"byte {fault.start} is not of the character set {'~'.join(names) or 'ASCII'}"
    raise BadMessage(Code.DATA_TYPE, "MSH-18", text)


def codec_and_charset(name: str) -> tuple[str, str]:
    """Return the codec and DICOM's name of a set, by its name in HL7, DICOM or Python. Raises BadMessage."""
    found = CHARSETS.get(name.upper()) or _by_alias(name)
    if found is None:
        text = f"character set {name[:40]!r} is none of {', '.join(CHARSETS)}, nor another name of a codec"
        raise BadMessage(Code.TABLE_VALUE, "MSH-18", text)
    return found


def _by_alias(name: str) -> tuple[str, str] | None:
    normalized = normalize_encoding(name.lower())
    codec = aliases.get(normalized, normalized)
    if codec not in _CODECS:
        return None
    try:
        info = codecs.lookup(codec)
        has_delimiters = _DELIMITERS.encode(info.name) == _DELIMITERS.encode()
    except (LookupError, ValueError):  # a codec that is not for text, or of another operating system
        return None
    if not has_delimiters:
        return None
    return ("ascii", "") if info.name == "ascii" else (info.name, _DICOM.get(info.name, _UTF_8))
