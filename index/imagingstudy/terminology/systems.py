"""The differences between the FHIR versions, as data."""

from dataclasses import dataclass

from index.imagingstudy.terminology.modalities import ACQUISITION, MODALITIES, RETIRED, RETIRED_ACQUISITION

SNOMED = "http://snomed.info/sct"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The systems, codes and types of one FHIR version.

    dicom: the system of the DICOM Controlled Terminology.
    identifier_type: the system of HL7 v2 table 0203.
    order_type: the system of PLAC and FILL, another one in DSTU2.
    family_list: whether HumanName.family repeats. practitioner_names: whether Practitioner.name repeats.
    modalities: the codes allowed for a study. lateralities: code and display by Laterality (0020,0060).
    order: the resource type of an order.
    """

    dicom: str
    identifier_type: str
    order_type: str
    family_list: bool
    practitioner_names: bool
    modalities: frozenset[str]
    lateralities: dict[str, tuple[str, str]]
    order: str


_EXAMPLE_SIDES = {
    "L": ("419161000", "Unilateral left"),
    "R": ("419465000", "Unilateral right"),
    "B": ("51440002", "Bilateral"),
}
"""The example value set bodysite-laterality of DSTU2 and R4."""

_CID_244 = {"L": ("7771000", "Left"), "R": ("24028007", "Right"), "B": ("51440002", "Bilateral")}
"""PS3.16 CID 244, which R5 names. Its Unilateral is not U, which is unpaired (PS3.3 C.7.6.16.2.8)."""

_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"

DIALECTS: dict[str, Dialect] = {
    "dstu2": Dialect(
        dicom="http://nema.org/dicom/dicm",
        identifier_type="http://hl7.org/fhir/v2/0203",
        order_type="http://hl7.org/fhir/identifier-type",
        family_list=True,
        practitioner_names=False,
        modalities=RETIRED_ACQUISITION | ACQUISITION.keys(),
        lateralities=_EXAMPLE_SIDES,
        order="DiagnosticOrder",
    ),
    "r4": Dialect(
        dicom=_DCM,
        identifier_type=_V2_0203,
        order_type=_V2_0203,
        family_list=False,
        practitioner_names=True,
        modalities=frozenset(ACQUISITION),
        lateralities=_EXAMPLE_SIDES,
        order="ServiceRequest",
    ),
    "r5": Dialect(
        dicom=_DCM,
        identifier_type=_V2_0203,
        order_type=_V2_0203,
        family_list=False,
        practitioner_names=True,
        modalities=frozenset(MODALITIES | RETIRED),
        lateralities=_CID_244,
        order="ServiceRequest",
    ),
}
"""By the names of VERSIONS."""
