"""The identifier of a C-MOVE or C-GET (PS3.4 Sections C.4.2.1.4 and C.4.3.1.3): what is to be sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from index.dicom.uids import is_uid
from index.dicom.value_rules import cut_off
from index.query.value_matching import BadIdentifier

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# PS3.4 Sections C.6.1.1 and C.6.2.1: the unique key of each level, from the top.
UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_PADDING = "\0 "


@dataclass(frozen=True, slots=True)
class RetrieveKeys:
    """Which instances are to be sent: those for which each key with a value matches, or one UID of its list.

    `issuer` is IssuerOfPatientID; it restricts `patient_id` only.
    """

    patient_id: str = ""
    issuer: str = ""
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()


def read_retrieve_keys(identifier: "Dataset", *, patient_root: bool) -> RetrieveKeys:
    """Return the keys of an identifier in the Patient Root or the Study Root information model.

    The unique key of the level is needed, and those of lower levels must be empty. Keys of higher levels are
    matched where they are given: many callers leave them out, and UIDs are unique without them. Other
    attributes are not looked at, as the standard has it. Raises BadIdentifier.
    """
    if name := cut_off(identifier):
        raise BadIdentifier(name, "ends within its value")
    levels = list(UNIQUE_KEYS) if patient_root else list(UNIQUE_KEYS)[1:]
    given = _values(identifier, "QueryRetrieveLevel")
    if len(given) != 1 or given[0] not in levels:
        raise BadIdentifier("QueryRetrieveLevel", f"is {_shown(given)}; allowed are {', '.join(levels)}")
    level = levels.index(given[0])
    values = {one: _unique_key(identifier, one, is_level=one == given[0]) for one in levels[: level + 1]}
    for lower in levels[level + 1 :]:
        if _values(identifier, UNIQUE_KEYS[lower]):
            raise BadIdentifier(UNIQUE_KEYS[lower], f"is below the level {given[0]}")
    patient = values.get("PATIENT", ())
    issuer = _values(identifier, "IssuerOfPatientID") if patient else []
    return RetrieveKeys(
        next(iter(patient), ""),
        next(iter(issuer), ""),
        values.get("STUDY", ()),
        values.get("SERIES", ()),
        values.get("IMAGE", ()),
    )


def _unique_key(identifier: "Dataset", level: str, *, is_level: bool) -> tuple[str, ...]:
    """Return the values of a level's unique key, each once; only the level itself may have several UIDs."""
    keyword = UNIQUE_KEYS[level]
    values = tuple(dict.fromkeys(_values(identifier, keyword)))
    if is_level and not values:
        raise BadIdentifier(keyword, f"is missing, the unique key of the level {level}")
    if len(values) > 1 and (level == "PATIENT" or not is_level):
        raise BadIdentifier(keyword, "has several values; only the UIDs of the level itself may be a list")
    if level != "PATIENT":
        for value in values:
            if not is_uid(value):
                raise BadIdentifier(keyword, f"is {_shown([value])}, not a UID")
    return values


def _values(identifier: "Dataset", keyword: str) -> list[str]:
    """Return the values of an attribute that are not empty. Raises BadIdentifier where they are no texts."""
    try:
        value = identifier.get(keyword)
    except Exception as error:  # pydicom raises many kinds of error for damaged bytes
        raise BadIdentifier(keyword, "cannot be read") from error
    several: Sequence[object]
    if value is None:
        several = ()
    elif isinstance(value, str):
        several = (value,)
    else:
        several = list(value) if hasattr(value, "__iter__") and not isinstance(value, bytes) else (value,)
    texts = []
    for one in several:
        if not isinstance(one, str):
            raise BadIdentifier(keyword, "is not a text")
        texts.append(one.strip(_PADDING))
    return [text for text in texts if text]


def _shown(values: Sequence[str]) -> str:
    """Return values of a caller for a message: short, in ASCII."""
    return ascii("\\".join(values)[:64]) if values else "missing"
