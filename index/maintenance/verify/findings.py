"""What `verify` can find, and how it says it."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of damage. An object that is missing or corrupt is mended from an equal copy only."""

    DATABASE_DAMAGED = "database-damaged"
    OBJECT_MISSING = "object-missing"
    OBJECT_CORRUPT = "object-corrupt"
    OBJECT_WITHOUT_ROW = "object-without-row"
    OBJECT_NOT_INDEXED = "object-not-indexed"
    ROW_BROKEN = "row-broken"
    ROW_DIFFERS = "row-differs"
    STUDY_COUNT = "study-count"
    SERIES_COUNT = "series-count"
    VARIANT_COUNT = "variant-count"
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
    """One fault: what it is about (UID or name), where that is below the data directory, what is wrong."""

    kind: Kind
    what: str
    path: str
    detail: str
    mended: bool = False
