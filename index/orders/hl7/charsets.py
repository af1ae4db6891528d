"""MSH-18 by HL7 Table 0211: Python's codec, and DICOM's Specific Character Set (PS3.3 C.12.1.1.2)."""

from index.orders.hl7.faults import BadMessage, Code

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
    "ISO IR14": ("iso2022_jp", "ISO_IR 192"),
    "ISO IR87": ("iso2022_jp", "ISO_IR 192"),
    "ISO IR159": ("iso2022_jp_2", "ISO_IR 192"),
    "GB 18030-2000": ("gb18030", "GB18030"),
    "KS X 1001": ("euc_kr", "ISO_IR 192"),
    "CNS 11643-1992": ("big5", "ISO_IR 192"),
    "BIG-5": ("big5", "ISO_IR 192"),
    "UNICODE": ("utf-8", "ISO_IR 192"),
    "UNICODE UTF-8": ("utf-8", "ISO_IR 192"),
    # Not in the table, but sent: the names that IANA gives them.
    "UTF-8": ("utf-8", "ISO_IR 192"),
    "ISO-8859-1": ("iso8859-1", "ISO_IR 100"),
}
"""By MSH-18. Where DICOM has no single set of the same repertoire, the order is kept as UTF-8."""

# Senders that name no set and use one: UTF-8 is told from the others by itself, Latin-1 is the most common.
_UNNAMED = (("ascii", ""), ("utf-8", "ISO_IR 192"), ("iso8859-1", "ISO_IR 100"))


def decode(message: bytes, named: list[str], configured: str = "") -> tuple[str, str, str]:
    """Return the text, the codec and DICOM's name for it. Raises BadMessage naming MSH-18.

    `named` are the repetitions of MSH-18; the last that is not ASCII decides, as its escape sequences
    include the others.
    """
    names = [name.strip() for name in named if name.strip()] or [configured] * bool(configured)
    tried = [_known(name) for name in names]
    chosen = [one for one in tried if one[0] != "ascii"][-1:] or tried[-1:]
    for codec, charset in chosen or _UNNAMED:
        try:
            return message.decode(codec), codec, charset
        except UnicodeDecodeError as error:
            fault = error
    raise BadMessage(
        Code.DATA_TYPE,
        "MSH-18",
        f"byte {fault.start} is not of the character set {'~'.join(names) or 'ASCII'}",
    )


def _known(name: str) -> tuple[str, str]:
    try:
        return CHARSETS[name.upper()]
    except KeyError:
        raise BadMessage(
            Code.TABLE_VALUE, "MSH-18", f"character set {name!r} is none of {', '.join(CHARSETS)}"
        ) from None
