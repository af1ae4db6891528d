"""Which attributes of an instance are kept, and on which level (PS3.3 A.1.2, tags and VRs by PS3.6).

The header reader keeps the attributes of these tables and skips everything else by its length. A row also
names the elements of ImagingStudy that it fills, as in index/imagingstudy/mapping_table.py. A new attribute
is one row here: the README's table follows, and `verify` advises to read older instances again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto


class Kind(Enum):
    """How the bytes of a value become text."""

    CODE = auto()  # the default repertoire only, one line
    TEXT = auto()  # SpecificCharacterSet applies, one line (PS3.5 Section 6.1.2.3)
    LONG = auto()  # SpecificCharacterSet applies, several lines
    NAME = auto()  # a person name of up to three component groups (PS3.5 Section 6.2.1)
    UID = auto()
    NUMBER = auto()  # a binary integer, kept as its decimal text
    SEQUENCE = auto()


KIND_OF_VR = {
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UR"), Kind.CODE),
    **dict.fromkeys(("LO", "SH", "UC"), Kind.TEXT),
    **dict.fromkeys(("LT", "ST", "UT"), Kind.LONG),
    **dict.fromkeys(("SL", "SS", "UL", "US"), Kind.NUMBER),
    "PN": Kind.NAME,
    "UI": Kind.UID,
    "SQ": Kind.SEQUENCE,
}

# Some senders write one text VR for another; the bytes are read alike. UN is any VR (PS3.5 6.2.2).
_TEXTUAL = frozenset(vr for vr, kind in KIND_OF_VR.items() if kind not in (Kind.NUMBER, Kind.SEQUENCE)) | {
    "UN"
}
_NUMERIC = frozenset({"SL", "SS", "UL", "US", "UN"})
_SEQUENCE = frozenset({"SQ", "UN"})


@dataclass(frozen=True, slots=True)
class Attribute:
    """A row: keyword, tag and VR (PS3.6), items of a sequence, levels, and elements of ImagingStudy."""

    keyword: str
    tag: int
    vr: str
    many: bool = False
    items: Mapping[int, "Attribute"] = field(default_factory=dict)
    levels: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    kind: Kind = field(init=False)
    plain: bool = field(init=False)  # one line, one value

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", KIND_OF_VR[self.vr])
        object.__setattr__(self, "plain", self.kind in (Kind.CODE, Kind.TEXT) and not self.many)

    def fits(self, vr: str | None) -> bool:
        """Whether a value of this VR (None: implicit VR) can be read as this attribute."""
        if vr is None or vr == self.vr:
            return True
        if self.kind is Kind.SEQUENCE:
            return vr in _SEQUENCE
        return vr in (_NUMERIC if self.kind is Kind.NUMBER else _TEXTUAL)


Table = Mapping[int, Attribute]

SPECIFIC_CHARACTER_SET = Attribute("SpecificCharacterSet", 0x00080005, "CS", many=True)


def _table(*attributes: Attribute) -> Table:
    return {attribute.tag: attribute for attribute in attributes}


def _sequence(keyword: str, tag: int, items: Table, elements: tuple[str, ...] = ()) -> Attribute:
    # An item may have a character set of its own (PS3.5 Section 7.5.3).
    items = {**items, SPECIFIC_CHARACTER_SET.tag: SPECIFIC_CHARACTER_SET}
    return Attribute(keyword, tag, "SQ", items=items, elements=elements)


# PS3.3 Table 8.8-1, Code Sequence Macro.
_CODE = _table(
    Attribute("CodeValue", 0x00080100, "SH"),
    Attribute("CodingSchemeDesignator", 0x00080102, "SH"),
    Attribute("CodingSchemeVersion", 0x00080103, "SH"),
    Attribute("CodeMeaning", 0x00080104, "LO"),
    Attribute("LongCodeValue", 0x00080119, "UC"),
    Attribute("URNCodeValue", 0x00080120, "UR"),
)

# PS3.3 Table 10-17, HL7v2 Hierarchic Designator Macro.
_ISSUER = _table(
    Attribute("LocalNamespaceEntityID", 0x00400031, "UT"),
    Attribute("UniversalEntityID", 0x00400032, "UT"),
    Attribute("UniversalEntityIDType", 0x00400033, "CS"),
)

# PS3.3 Table 10-1, Person Identification Macro.
_PERSON = _table(
    Attribute("InstitutionName", 0x00080080, "LO"),
    _sequence("InstitutionCodeSequence", 0x00080082, _CODE),
    _sequence("PersonIdentificationCodeSequence", 0x00401101, _CODE),
)

_QUALIFIERS = _table(
    Attribute("UniversalEntityID", 0x00400032, "UT"),
    Attribute("UniversalEntityIDType", 0x00400033, "CS"),
    Attribute("IdentifierTypeCode", 0x00400035, "CS"),
)

_OTHER_IDS = _table(
    Attribute("PatientID", 0x00100020, "LO"),
    Attribute("IssuerOfPatientID", 0x00100021, "LO"),
    Attribute("TypeOfPatientID", 0x00100022, "CS"),
    _sequence("IssuerOfPatientIDQualifiersSequence", 0x00100024, _QUALIFIERS),
)

# PS3.3 Table 10-9, Request Attributes Macro.
_REQUEST = _table(
    Attribute("AccessionNumber", 0x00080050, "SH"),
    _sequence("IssuerOfAccessionNumberSequence", 0x00080051, _ISSUER),
    Attribute("StudyInstanceUID", 0x0020000D, "UI"),
    Attribute("RequestedProcedureDescription", 0x00321060, "LO"),
    _sequence("RequestedProcedureCodeSequence", 0x00321064, _CODE),
    Attribute("ScheduledProcedureStepDescription", 0x00400007, "LO"),
    Attribute("ScheduledProcedureStepID", 0x00400009, "SH"),
    Attribute("RequestedProcedureID", 0x00401001, "SH"),
    Attribute("ReasonForTheRequestedProcedure", 0x00401002, "LO"),
    _sequence("ReasonForRequestedProcedureCodeSequence", 0x0040100A, _CODE),
)

_REGION = _table(*_CODE.values(), _sequence("AnatomicRegionModifierSequence", 0x00082220, _CODE))

_REFERENCE = _table(
    Attribute("ReferencedSOPClassUID", 0x00081150, "UI"),
    Attribute("ReferencedSOPInstanceUID", 0x00081155, "UI"),
)

_SPECIMEN = _table(
    Attribute("SpecimenIdentifier", 0x00400551, "LO"),
    Attribute("SpecimenUID", 0x00400554, "UI"),
    _sequence("IssuerOfTheSpecimenIdentifierSequence", 0x00400562, _ISSUER),
    _sequence("SpecimenTypeCodeSequence", 0x0040059A, _CODE),
)

ANATOMIC_REGION = _sequence("AnatomicRegionSequence", 0x00082218, _REGION, elements=("series.bodySite",))
FRAME_LATERALITY = Attribute("FrameLaterality", 0x00209072, "CS", elements=("series.laterality",))
FRAME_ANATOMY = _sequence("FrameAnatomySequence", 0x00209071, _table(ANATOMIC_REGION, FRAME_LATERALITY))

# The UIDs of an instance, and attributes that control the reading. They have no level.
SOP_CLASS_UID = Attribute(
    "SOPClassUID", 0x00080016, "UI", elements=("series.instance.sopClass", "series.instance.type")
)
SOP_INSTANCE_UID = Attribute("SOPInstanceUID", 0x00080018, "UI", elements=("series.instance.uid",))
STUDY_INSTANCE_UID = Attribute("StudyInstanceUID", 0x0020000D, "UI", elements=("id", "identifier [uid]"))
SERIES_INSTANCE_UID = Attribute("SeriesInstanceUID", 0x0020000E, "UI", elements=("series.uid",))
# Enhanced multi-frame objects carry their anatomy here (PS3.3 Section C.7.6.16).
SHARED_GROUPS = _sequence("SharedFunctionalGroupsSequence", 0x52009229, _table(FRAME_ANATOMY))
PER_FRAME_GROUPS = _sequence("PerFrameFunctionalGroupsSequence", 0x52009230, _table(FRAME_ANATOMY))
NUMBER_OF_FRAMES = Attribute("NumberOfFrames", 0x00280008, "IS")

_PATIENT = (
    Attribute("PatientName", 0x00100010, "PN"),
    Attribute("PatientID", 0x00100020, "LO", elements=("subject",)),
    Attribute("IssuerOfPatientID", 0x00100021, "LO", elements=("subject",)),
    Attribute("TypeOfPatientID", 0x00100022, "CS"),
    _sequence("IssuerOfPatientIDQualifiersSequence", 0x00100024, _QUALIFIERS, elements=("subject",)),
    Attribute("PatientBirthDate", 0x00100030, "DA"),
    Attribute("PatientBirthTime", 0x00100032, "TM"),
    Attribute("PatientSex", 0x00100040, "CS"),
    _sequence("OtherPatientIDsSequence", 0x00101002, _OTHER_IDS),
)

_STUDY = (
    Attribute("StudyDate", 0x00080020, "DA", elements=("started",)),
    Attribute("StudyTime", 0x00080030, "TM", elements=("started",)),
    Attribute("AccessionNumber", 0x00080050, "SH", elements=("identifier [ACSN]",)),
    _sequence("IssuerOfAccessionNumberSequence", 0x00080051, _ISSUER, elements=("identifier [ACSN]",)),
    Attribute("ReferringPhysicianName", 0x00080090, "PN", elements=("referrer",)),
    _sequence("ReferringPhysicianIdentificationSequence", 0x00080096, _PERSON, elements=("referrer",)),
    Attribute("StudyDescription", 0x00081030, "LO", elements=("description",)),
    _sequence(
        "ProcedureCodeSequence", 0x00081032, _CODE, elements=("partOf", "procedureReference", "procedure")
    ),
    Attribute("NameOfPhysiciansReadingStudy", 0x00081060, "PN", many=True, elements=("interpreter",)),
    _sequence("PhysiciansReadingStudyIdentificationSequence", 0x00081062, _PERSON, elements=("interpreter",)),
    Attribute("StudyID", 0x00200010, "SH", elements=("identifier",)),
    Attribute("ReasonForStudy", 0x00321030, "LO"),
    Attribute("RequestedProcedureDescription", 0x00321060, "LO", elements=("description",)),
    _sequence("RequestedProcedureCodeSequence", 0x00321064, _CODE, elements=("procedure",)),
    Attribute("AdmissionID", 0x00380010, "LO", elements=("encounter",)),
    _sequence("IssuerOfAdmissionIDSequence", 0x00380014, _ISSUER, elements=("encounter",)),
    Attribute("ReasonForTheRequestedProcedure", 0x00401002, "LO", elements=("reason",)),
    _sequence("ReasonForRequestedProcedureCodeSequence", 0x0040100A, _CODE, elements=("reason",)),
)

_SERIES = (
    Attribute("SeriesDate", 0x00080021, "DA", elements=("series.started",)),
    Attribute("SeriesTime", 0x00080031, "TM", elements=("series.started",)),
    Attribute("Modality", 0x00080060, "CS", elements=("modality", "series.modality")),
    Attribute("Manufacturer", 0x00080070, "LO"),
    Attribute("InstitutionName", 0x00080080, "LO"),
    Attribute("StationName", 0x00081010, "SH"),
    Attribute("SeriesDescription", 0x0008103E, "LO", elements=("series.description",)),
    Attribute("InstitutionalDepartmentName", 0x00081040, "LO", elements=("location",)),
    Attribute("PerformingPhysicianName", 0x00081050, "PN", many=True, elements=("series.performer.actor",)),
    _sequence(
        "PerformingPhysicianIdentificationSequence", 0x00081052, _PERSON, elements=("series.performer.actor",)
    ),
    Attribute("OperatorsName", 0x00081070, "PN", many=True, elements=("series.performer.actor",)),
    _sequence("OperatorIdentificationSequence", 0x00081072, _PERSON, elements=("series.performer.actor",)),
    Attribute("ManufacturerModelName", 0x00081090, "LO"),
    _sequence("ReferencedPerformedProcedureStepSequence", 0x00081111, _REFERENCE),
    ANATOMIC_REGION,
    Attribute("BodyPartExamined", 0x00180015, "CS", elements=("series.bodySite",)),
    Attribute("ProtocolName", 0x00181030, "LO"),
    Attribute("SeriesNumber", 0x00200011, "IS", elements=("series.number",)),
    Attribute("Laterality", 0x00200060, "CS", elements=("series.laterality",)),
    Attribute("ImageLaterality", 0x00200062, "CS", elements=("series.laterality",)),
    Attribute("PerformedLocation", 0x00400243, "SH"),
    Attribute("PerformedProcedureStepStartDate", 0x00400244, "DA"),
    Attribute("PerformedProcedureStepStartTime", 0x00400245, "TM"),
    Attribute("PerformedProcedureStepID", 0x00400253, "SH"),
    _sequence(
        "RequestAttributesSequence",
        0x00400275,
        _REQUEST,
        elements=("identifier [ACSN]", "procedure", "reason", "description"),
    ),
    Attribute("ContainerIdentifier", 0x00400512, "LO"),
    _sequence("SpecimenDescriptionSequence", 0x00400560, _SPECIMEN, elements=("series.specimen",)),
    Attribute("RetrieveLocationUID", 0x0040E011, "UI"),
)

_INSTANCE = (
    Attribute("ImageType", 0x00080008, "CS", many=True, elements=("series.instance.title",)),
    Attribute("ContentDate", 0x00080023, "DA"),
    Attribute("ContentTime", 0x00080033, "TM"),
    Attribute("InstanceAvailability", 0x00080056, "CS", elements=("availability", "series.availability")),
    Attribute("InstanceNumber", 0x00200013, "IS", elements=("series.instance.number",)),
    NUMBER_OF_FRAMES,
    Attribute("Rows", 0x00280010, "US"),
    Attribute("Columns", 0x00280011, "US"),
    Attribute("BitsAllocated", 0x00280100, "US"),
    Attribute("DocumentTitle", 0x00420010, "ST", elements=("series.instance.title",)),
    _sequence("ConceptNameCodeSequence", 0x0040A043, _CODE, elements=("series.instance.title",)),
    Attribute("ContentLabel", 0x00700080, "CS", elements=("series.instance.title",)),
    Attribute("ContentDescription", 0x00700081, "LO"),
)

# Attributes of the patient's body. decoding.py makes FrameAnatomySequence from the groups of frames.
BODY = frozenset(
    (
        "AnatomicRegionSequence",
        "BodyPartExamined",
        "FrameAnatomySequence",
        "ImageLaterality",
        "Laterality",
        "SpecimenDescriptionSequence",
    )
)

LEVELS = ("patient", "study", "series", "instance")
IDENTITY = frozenset(uid.tag for uid in (SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID))


def _leveled() -> dict[int, Attribute]:
    tables = zip(LEVELS, (_PATIENT, _STUDY, _SERIES, _INSTANCE), strict=True)
    return {a.tag: replace(a, levels=(level,)) for level, table in tables for a in table}


# All attributes kept from the top level of a data set, by tag.
WANTED: Table = {
    **_leveled(),
    **_table(
        SPECIFIC_CHARACTER_SET,
        SOP_CLASS_UID,
        SOP_INSTANCE_UID,
        STUDY_INSTANCE_UID,
        SERIES_INSTANCE_UID,
        SHARED_GROUPS,
        # The zone holds for the times of the study and of the series alike.
        Attribute(
            "TimezoneOffsetFromUTC",
            0x00080201,
            "SH",
            levels=("study", "series"),
            elements=("started", "series.started"),
        ),
    ),
}


def attributes_of(element: str) -> list[Attribute]:
    """Return the attributes that fill an element of ImagingStudy, in the order of WANTED."""
    return [one for one in (*WANTED.values(), FRAME_LATERALITY) if element in one.elements]


def table_digest() -> str:
    """Return a hash of WANTED: another one where an instance's attributes are others, or of another level."""
    return hashlib.sha256(repr(_facts(WANTED)).encode()).hexdigest()


def _facts(table: Table) -> list[tuple[object, ...]]:
    """Return what the header reader goes by, in the order of tags."""
    rows = sorted(table.items())
    return [(tag, row.keyword, row.vr, row.many, row.levels, _facts(row.items)) for tag, row in rows]
