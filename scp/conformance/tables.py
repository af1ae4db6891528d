"""Tables in Markdown, and the names of UIDs (PS3.6)."""

from collections.abc import Iterable, Sequence

from pydicom.datadict import dictionary_description, keyword_for_tag, tag_for_keyword
from pydicom.uid import UID


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(one) for one in line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def named(uid: str) -> str:
    """Return the name of a UID; the UID itself where PS3.6 has none."""
    return UID(uid).name


def tag_text(tag: int) -> str:
    """Return a tag as it is written: (0010,0020)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def attribute(keyword: str) -> tuple[str, str]:
    """Return name and tag of an attribute, by its keyword."""
    tag = tag_for_keyword(keyword)
    return (keyword, "") if tag is None else (dictionary_description(tag), tag_text(tag))


def keyword_of(tag: str) -> str:
    """Return the keyword of a tag in DICOM JSON: eight hexadecimal digits."""
    return keyword_for_tag(int(tag, 16))
