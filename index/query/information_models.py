"""The Query/Retrieve information models: their levels, and the keys of each level (PS3.4 Section C.6).

Every attribute that the index keeps is a key of its level, besides those of the tables in PS3.4.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from pydicom.tag import BaseTag

from index.dicom.attributes import LEVELS, WANTED, Attribute
from index.query.keys import NOT_MATCHED, Entries, Key, make_keys


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), from the top down."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def depth(self) -> int:
        """How far it is below the patient."""
        return list(Level).index(self)


PATIENT_ROOT = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
# Its study level has the attributes of the patient (PS3.4 Table C.6-5).
STUDY_ROOT = (Level.STUDY, Level.SERIES, Level.IMAGE)

UNIQUE_KEYS = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}

# PS3.4 Tables C.6-1 to C.6-4: required and unique keys, and what is counted or collected for an entity.
_REQUIRED: Mapping[Level, Entries] = {
    Level.PATIENT: {
        "PatientName": ("R", "2"),
        "PatientID": ("U", "1"),
        "NumberOfPatientRelatedStudies": ("O", "3"),
        "NumberOfPatientRelatedSeries": ("O", "3"),
        "NumberOfPatientRelatedInstances": ("O", "3"),
    },
    Level.STUDY: {
        "StudyDate": ("R", "2"),
        "StudyTime": ("R", "2"),
        "AccessionNumber": ("R", "2"),
        "StudyID": ("R", "2"),
        "StudyInstanceUID": ("U", "1"),
        "ModalitiesInStudy": ("O", "3"),
        "SOPClassesInStudy": ("O", "3"),
        "NumberOfStudyRelatedSeries": ("O", "3"),
        "NumberOfStudyRelatedInstances": ("O", "3"),
        "TimezoneOffsetFromUTC": (NOT_MATCHED, "3"),
    },
    Level.SERIES: {
        "Modality": ("R", "1"),
        "SeriesNumber": ("R", "2"),
        "SeriesInstanceUID": ("U", "1"),
        "NumberOfSeriesRelatedInstances": ("O", "3"),
        "TimezoneOffsetFromUTC": (NOT_MATCHED, "3"),
    },
    Level.IMAGE: {
        "InstanceNumber": ("R", "2"),
        "SOPInstanceUID": ("U", "1"),
        "SOPClassUID": ("O", "3"),
        "AvailableTransferSyntaxUID": ("O", "3"),
    },
}
# Of every level (PS3.4 Section C.4.1.1.3.2 and Table C.3-1).
_OF_ALL: Entries = {
    "QueryRetrieveLevel": (NOT_MATCHED, "1"),
    "RetrieveAETitle": (NOT_MATCHED, "1"),
    "InstanceAvailability": (NOT_MATCHED, "3"),
}


def _kept_keys(attributes: Iterable[Attribute]) -> dict[str, Key]:
    return {
        one.keyword: Key(one.keyword, BaseTag(one.tag), one.vr, "O", "3", _kept_keys(one.items.values()))
        for one in attributes
    }


def _keys_of(level: Level) -> dict[str, Key]:
    name = LEVELS[level.depth]
    kept = _kept_keys(one for one in WANTED.values() if name in one.levels)
    return {**kept, **make_keys(_REQUIRED[level]), **make_keys(_OF_ALL)}


KEYS: Mapping[Level, Mapping[str, Key]] = {level: _keys_of(level) for level in Level}
"""The keys of each level, by keyword."""


def keys_down_to(level: Level) -> dict[str, Key]:
    """Return the keys of a level and of the levels above it."""
    return {keyword: key for one in Level if one.depth <= level.depth for keyword, key in KEYS[one].items()}


def level_of(keyword: str) -> Level | None:
    """Return the highest level that has a key. None: no level has it."""
    return next((level for level in Level if keyword in KEYS[level]), None)
