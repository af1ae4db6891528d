"""The keys of an information model: what an identifier may ask for, and how that is matched and returned."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.tag import BaseTag

from index.dicom.value_rules import tag_and_vr

Entries = Mapping[str, "tuple[str, str] | tuple[str, str, Entries]"]
"""By keyword: matching key type and return key type, and for a sequence the keys of its items.

R is required, O optional, - none; 1, 1C, 2, 2C, 3 are the types of PS3.5 Section 7.4.
"""

NOT_MATCHED = "-"
"""The matching key type of an attribute that is only returned."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its attribute, its matching and return key types, and for a sequence the keys of its items."""

    keyword: str
    tag: BaseTag
    vr: str
    matching: str
    returned: str
    items: Mapping[str, "Key"]


def make_keys(entries: Entries) -> dict[str, Key]:
    """Return the keys of a table, by keyword."""
    keys = {}
    for keyword, (matching, returned, *items) in entries.items():
        keys_of_items = make_keys(items[0]) if items else {}
        keys[keyword] = Key(keyword, *tag_and_vr(keyword), matching, returned, keys_of_items)
    return keys
