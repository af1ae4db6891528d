"""Transfer syntaxes in the order of preference: PS3.6 Table A-1, with those that pynetdicom does not list.

The order keeps senders from compressing lossily, or at all, because of us.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum

from index import is_uid


class Rank(IntEnum):
    """Kinds of transfer syntax, the preferred one first."""

    EXPLICIT_LITTLE_ENDIAN = 0
    IMPLICIT_LITTLE_ENDIAN = 1
    LOSSLESS = 2
    DEFLATED = 3
    EXPLICIT_BIG_ENDIAN = 4
    LOSSY = 5
    # Private ones, those with pixel data elsewhere, and those that are not encodings of PS3.5.
    UNKNOWN = 6


_BASE = "1.2.840.10008.1.2"

_SUFFIXES: dict[Rank, tuple[str, ...]] = {
    Rank.EXPLICIT_LITTLE_ENDIAN: (".1",),
    Rank.IMPLICIT_LITTLE_ENDIAN: ("",),
    Rank.LOSSLESS: (
        ".1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
        ".5",  # RLE
        # JPEG Lossless: processes 14, 15, 28, 29, and 14 with selection value 1
        *(".4.57", ".4.58", ".4.65", ".4.66", ".4.70"),
        ".4.80",  # JPEG-LS
        *(".4.90", ".4.92"),  # JPEG 2000, and its part 2
        ".4.110",  # JPEG XL
        *(".4.201", ".4.202"),  # High-Throughput JPEG 2000
        ".8.1",  # Deflated Image Frame Compression
    ),
    Rank.DEFLATED: (".1.99",),
    Rank.EXPLICIT_BIG_ENDIAN: (".2",),
    Rank.LOSSY: (
        *(".4.50", ".4.51"),  # JPEG Baseline and Extended
        *(f".4.{n}" for n in (52, 53, 54, 55, 56, 59, 60, 61, 62, 63, 64)),  # JPEG processes that are retired
        *(".4.81", ".4.91", ".4.93"),  # JPEG-LS near-lossless, JPEG 2000, and its part 2
        *(".4.111", ".4.112"),  # JPEG XL, made from a lossy JPEG or lossy itself
        ".4.203",  # High-Throughput JPEG 2000
        *(f".4.{n}" for n in range(100, 109)),  # MPEG2, MPEG-4 AVC/H.264, HEVC/H.265
        *(f".4.{n}.1" for n in range(100, 107)),  # the same, fragmentable
    ),
    Rank.UNKNOWN: (
        *(".4.94", ".4.95", ".4.204", ".4.205"),  # JPIP: the pixel data is elsewhere
        *(".7.1", ".7.2", ".7.3"),  # SMPTE ST 2110: real-time streams
        *(".6.1", ".6.2"),  # RFC 2557 MIME and XML, retired
    ),
}

RANKS: dict[str, Rank] = {_BASE + suffix: rank for rank, group in _SUFFIXES.items() for suffix in group}

# What pydicom decodes, for services that read data sets.
DECODABLE = frozenset(
    uid
    for uid, rank in RANKS.items()
    if rank in (Rank.EXPLICIT_LITTLE_ENDIAN, Rank.IMPLICIT_LITTLE_ENDIAN, Rank.EXPLICIT_BIG_ENDIAN)
)


def preferred(proposed: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    """Return the transfer syntaxes that are UIDs, best first, each once; equal ones as proposed.

    With an `order` of kinds ("lossless") and UIDs only those are returned, in that order. A UID in it counts
    before its kind.
    """
    valid = dict.fromkeys(uid for uid in proposed if is_uid(uid))
    if not order:
        return sorted(valid, key=lambda uid: RANKS.get(uid, Rank.UNKNOWN))
    positions = {name: position for position, name in reversed(list(enumerate(order)))}

    def position(uid: str) -> int | None:
        return positions.get(uid, positions.get(kind(uid)))

    return sorted((uid for uid in valid if position(uid) is not None), key=lambda uid: position(uid) or 0)


def kind(uid: str) -> str:
    """Return the kind of a transfer syntax as named in the configuration."""
    return RANKS.get(uid, Rank.UNKNOWN).name.lower().replace("_", "-")
