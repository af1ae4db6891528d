"""Whatever the attributes hold, a resource that is not valid is never made."""

from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.errors import NotExpressible
from index.imagingstudy import VERSIONS, Rules
from index.records import Instance, Order, Patient, ProcedureStep, Series, Study
from support.fhirjudges import judge
from support.imagingstudies import CT, KO, RULES, resources

ODD = [
    "",
    " ",
    "\x00",
    "a\x07b",
    "\ud800",
    "\ufffe",
    "\u3000",
    "-1",
    "007",
    "9" * 13,
    "one",
    "1\\2",
]
PLAIN = st.sampled_from(
    ["A", "Doe^Jane=山田=やまだ", "==^", "^^^^^^", "CT", "L", "M", "HEAD", "URI", "urn:x y", "ISO"]
)
DATES = st.sampled_from(["20240702", "1999.01.02", "00000000", "20240230", "2024", "99991231", "00010101"])
TIMES = st.sampled_from(["101530.5", "1030", "24:00", "235960", "10", "+0100", "-9999", "+1400", "103000"])
TEXT = st.one_of(PLAIN, DATES, TIMES, st.sampled_from(ODD), st.text(max_size=12))
UIDS = st.one_of(
    st.sampled_from(["1.2.3", "1.02", "1.2.", ".", "..", "", "9" * 64, "1" * 65, "1.2\x00", "a/b", "é"]),
    st.from_regex(r"[0-9.]{1,64}", fullmatch=True),
)
WORDS = {
    "code": ("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"),
    "issuer": ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType", "IdentifierTypeCode"),
}
CODES = st.lists(st.dictionaries(st.sampled_from(WORDS["code"]), TEXT), max_size=2)
ISSUERS = st.lists(st.dictionaries(st.sampled_from(WORDS["issuer"]), TEXT), max_size=2)
PEOPLE = st.lists(st.fixed_dictionaries({}, optional={"PersonIdentificationCodeSequence": CODES}), max_size=2)
SPECIMENS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "SpecimenIdentifier": TEXT,
            "IssuerOfTheSpecimenIdentifierSequence": ISSUERS,
            "SpecimenTypeCodeSequence": CODES,
        },
    ),
    max_size=2,
)
LISTS = st.lists(TEXT, max_size=3)


def mapping(texts: str, **others: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(texts.split(), TEXT) | others)


PATIENT = mapping(
    "PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex",
    IssuerOfPatientIDQualifiersSequence=ISSUERS,
    OtherPatientIDsSequence=st.lists(
        mapping("PatientID IssuerOfPatientID TypeOfPatientID", IssuerOfPatientIDQualifiersSequence=ISSUERS),
        max_size=2,
    ),
)
REQUEST = {
    "IssuerOfAccessionNumberSequence": ISSUERS,
    "RequestedProcedureCodeSequence": CODES,
    "ReasonForRequestedProcedureCodeSequence": CODES,
    "ReferringPhysicianIdentificationSequence": PEOPLE,
}
STUDY = mapping(
    "StudyDate StudyTime TimezoneOffsetFromUTC AccessionNumber StudyID StudyDescription "
    "ReferringPhysicianName RequestedProcedureDescription ReasonForTheRequestedProcedure "
    "InstitutionalDepartmentName",
    NameOfPhysiciansReadingStudy=LISTS,
    PhysiciansReadingStudyIdentificationSequence=PEOPLE,
    ProcedureCodeSequence=CODES,
    **REQUEST,
)
SERIES = mapping(
    "Modality SeriesNumber SeriesDescription SeriesDate SeriesTime BodyPartExamined "
    "Laterality ImageLaterality",
    AnatomicRegionSequence=CODES,
    PerformingPhysicianName=LISTS,
    PerformingPhysicianIdentificationSequence=PEOPLE,
    OperatorsName=LISTS,
    SpecimenDescriptionSequence=SPECIMENS,
    RequestAttributesSequence=st.lists(
        mapping("RequestedProcedureDescription AccessionNumber", **REQUEST), max_size=2
    ),
)
INSTANCE = mapping(
    "InstanceNumber ContentLabel DocumentTitle InstanceAvailability",
    ImageType=LISTS,
    ConceptNameCodeSequence=CODES,
)
ORDER = mapping(
    "AccessionNumber PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest "
    "RequestedProcedureID RequestedProcedureDescription RequestedProcedurePriority RequestingPhysician "
    "IssueDateOfImagingServiceRequest IssueTimeOfImagingServiceRequest ReferringPhysicianName "
    "ReasonForTheRequestedProcedure",
    OrderPlacerIdentifierSequence=ISSUERS,
    **REQUEST,
)
STEP = mapping(
    "PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepEndDate "
    "PerformedProcedureStepEndTime PerformedProcedureStepDescription PerformedLocation",
    ProcedureCodeSequence=CODES,
    PerformedSeriesSequence=st.lists(mapping("PerformingPhysicianName", OperatorsName=LISTS), max_size=1),
)
INSTANCES = st.lists(
    st.builds(
        Instance,
        UIDS,
        st.one_of(st.sampled_from([CT, KO, "1.2.999"]), UIDS),
        st.sampled_from([0, 526_000, 2147483648]),
        st.sampled_from(["", "a" * 40]),
        INSTANCE,
    ),
    max_size=3,
)
STUDIES = st.builds(
    Study,
    st.one_of(st.just("1.2.3"), UIDS),
    st.builds(Patient, st.one_of(st.just("p"), TEXT), PATIENT),
    STUDY,
    st.lists(st.builds(Series, UIDS, SERIES, INSTANCES), max_size=3),
    orders=st.lists(
        st.builds(Order, TEXT, st.sampled_from(["SCHEDULED", "COMPLETED", ""]), ORDER),
        max_size=2,
        unique_by=lambda order: order.id,
    ),
    steps=st.lists(
        st.builds(ProcedureStep, UIDS, st.sampled_from(["IN PROGRESS", "COMPLETED", ""]), STEP),
        max_size=2,
        unique_by=lambda step: step.uid,
    ),
    withdrawn=st.booleans(),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(study=STUDIES, rules=st.sampled_from([RULES, Rules()]), version=st.sampled_from(VERSIONS))
def test_resources_are_valid_or_not_there(study: Study, rules: Rules, version: str) -> None:
    try:
        made = resources(study, version, rules)
    except NotExpressible:
        return
    judge(made, version)
    assert made == orjson.loads(orjson.dumps(made))
