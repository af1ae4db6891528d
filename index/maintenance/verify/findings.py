"""The findings of `verify`."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of findings."""

    DATABASE_DAMAGED = "database-damaged"
    ATTRIBUTES_OUTDATED = "attributes-outdated"
    """Rows were made with another attribute table (index/database/attribute_tables.py)."""
    OBJECT_MISSING = "object-missing"
    OBJECT_CORRUPT = "object-corrupt"
    """A missing or corrupt object can only be repaired from an equal copy."""
    OBJECT_WITHOUT_ROW = "object-without-row"
    OBJECT_NOT_INDEXED = "object-not-indexed"
    ROW_BROKEN = "row-broken"
    ROW_DIFFERS = "row-differs"
    STUDY_COUNT = "study-count"
    SERIES_COUNT = "series-count"
    VARIANT_COUNT = "variant-count"
    """The counts of studies, series and their variants (index/database/tables.py)."""
    STUDY_UNPUBLISHED = "study-unpublished"
    RESOURCE_MISSING = "resource-missing"
    RESOURCE_ALTERED = "resource-altered"
    RESOURCE_UNRECORDED = "resource-unrecorded"
    RESOURCE_STRAY = "resource-stray"
    CONFLICT_MISSING = "conflict-missing"
    CONFLICT_CORRUPT = "conflict-corrupt"
    CONFLICT_WITHOUT_ROW = "conflict-without-row"
    STUDY_IN_CONFLICT = "study-in-conflict"
    LEFTOVER = "leftover"
    DELETION_UNFINISHED = "deletion-unfinished"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: UID or name, path below the data directory, what is wrong, and whether it is repaired."""

    kind: Kind
    what: str
    path: str
    detail: str
    mended: bool = False
