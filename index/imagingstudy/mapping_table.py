"""Every element of ImagingStudy that is filled, in each version, and where it comes from.

`python -m index.imagingstudy.elements` prints the table as Markdown; the tests hold it against the builders.
"""

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Element:
    """A row: the element's path in each version (empty: that version has none) and its source.

    What stands in brackets after a path tells entries of one repeating element apart.
    """

    dstu2: str
    r4: str
    r5: str
    source: str


ELEMENTS = (
    Element("id", "id", "id", "StudyInstanceUID (0020,000D)"),
    Element(
        "uid", "identifier [uid]", "identifier [uid]", "StudyInstanceUID (0020,000D), `urn:oid:` in front"
    ),
    Element(
        "accession",
        "identifier [ACSN]",
        "identifier [ACSN]",
        "AccessionNumber (0008,0050), IssuerOfAccessionNumberSequence (0008,0051), also of the requests "
        "(0040,0275) and the orders: all of them, in DSTU2 the others as identifier",
    ),
    Element("identifier", "identifier", "identifier", "StudyID (0020,0010)"),
    Element("", "status", "status", "withdrawal, instances, procedure steps, orders"),
    Element(
        "modalityList",
        "modality",
        "modality",
        "the distinct Modality (0008,0060) of the series: acquisition (CID 29), in R5 all",
    ),
    Element("patient", "subject", "subject", "PatientID (0010,0020), IssuerOfPatientID (0010,0021)"),
    Element(
        "started",
        "started",
        "started",
        "StudyDate (0008,0020), StudyTime (0008,0030), or the earliest series; "
        "zone of (0008,0201) or configured, or date alone",
    ),
    Element(
        "",
        "encounter",
        "encounter",
        "AdmissionID (0038,0010), its issuer (0038,0014); else the order's: a logical reference",
    ),
    Element(
        "order",
        "basedOn",
        "basedOn",
        "the orders that the study was matched to, in R4 and R5 with their Accession Number; every other "
        "Accession Number as a logical reference",
    ),
    Element("", "", "partOf", "procedure steps (MPPS); else ProcedureCodeSequence (0008,1032)"),
    Element(
        "referrer",
        "referrer",
        "referrer",
        "ReferringPhysicianName (0008,0090), its identification (0008,0096); else the order's",
    ),
    Element(
        "interpreter",
        "interpreter",
        "",
        "NameOfPhysiciansReadingStudy (0008,1060), their identification (0008,1062); DSTU2 holds the first",
    ),
    Element("availability", "", "", "the worst InstanceAvailability (0008,0056); ONLINE where none is said"),
    Element(
        "url",
        "endpoint",
        "endpoint",
        "the configured DICOMweb base: address of the study, or WADO-RS Endpoint",
    ),
    Element("numberOfSeries", "numberOfSeries", "numberOfSeries", "counted"),
    Element("numberOfInstances", "numberOfInstances", "numberOfInstances", "counted"),
    Element(
        "procedure",
        "procedureReference",
        "",
        "procedure steps (MPPS); else ProcedureCodeSequence (0008,1032)",
    ),
    Element(
        "",
        "procedureCode",
        "procedure",
        "ProcedureCodeSequence (0008,1032), RequestedProcedureCodeSequence (0032,1064); else the order's",
    ),
    Element(
        "",
        "location",
        "location",
        "InstitutionalDepartmentName (0008,1040); else PerformedLocation (0040,0243)",
    ),
    Element(
        "",
        "reasonCode",
        "reason",
        "ReasonForTheRequestedProcedure (0040,1002), its codes (0040,100A); else the request's, the order's",
    ),
    Element(
        "description",
        "description",
        "description",
        "StudyDescription (0008,1030); else RequestedProcedureDescription (0032,1060), the order's too",
    ),
    Element("series.uid", "series.uid", "series.uid", "SeriesInstanceUID (0020,000E)"),
    Element("series.number", "series.number", "series.number", "SeriesNumber (0020,0011)"),
    Element(
        "series.modality",
        "series.modality",
        "series.modality",
        "Modality (0008,0060); OT where it is missing",
    ),
    Element(
        "series.description", "series.description", "series.description", "SeriesDescription (0008,103E)"
    ),
    Element("series.numberOfInstances", "series.numberOfInstances", "series.numberOfInstances", "counted"),
    Element("series.availability", "", "", "as for the study"),
    Element("series.url", "series.endpoint", "series.endpoint", "as for the study"),
    Element(
        "series.bodySite",
        "series.bodySite",
        "series.bodySite",
        "AnatomicRegionSequence (0008,2218), of frames too; else BodyPartExamined (0018,0015) by PS3.16 "
        "Annex L; nothing where instances differ",
    ),
    Element(
        "series.laterality",
        "series.laterality",
        "series.laterality",
        "ImageLaterality (0020,0062), FrameLaterality (0020,9072); else Laterality (0020,0060): bilateral "
        "where both sides occur, nothing where instances differ otherwise",
    ),
    Element(
        "",
        "series.specimen",
        "series.specimen",
        "SpecimenIdentifier (0040,0551), its issuer (0040,0562), type (0040,059A)",
    ),
    Element(
        "series.started", "series.started", "series.started", "SeriesDate (0008,0021), SeriesTime (0008,0031)"
    ),
    Element(
        "",
        "series.performer.function",
        "series.performer.function",
        "PRF for the performing physician, SPRF for the operator",
    ),
    Element(
        "",
        "series.performer.actor",
        "series.performer.actor",
        "PerformingPhysicianName (0008,1050), OperatorsName (0008,1070), their identification (0008,1052), "
        "(0008,1072)",
    ),
    Element(
        "series.instance.uid", "series.instance.uid", "series.instance.uid", "SOPInstanceUID (0008,0018)"
    ),
    Element(
        "series.instance.number",
        "series.instance.number",
        "series.instance.number",
        "InstanceNumber (0020,0013)",
    ),
    Element(
        "series.instance.sopClass",
        "series.instance.sopClass",
        "series.instance.sopClass",
        "SOPClassUID (0008,0016); its name is the display of R4 and R5",
    ),
    Element("series.instance.type", "", "", "the name of the SOP Class (PS3.6 Annex A)"),
    Element(
        "series.instance.title",
        "series.instance.title",
        "series.instance.title",
        "ContentLabel (0070,0080); else the concept name's meaning (0040,A043), DocumentTitle (0042,0010), "
        "ImageType (0008,0008)",
    ),
    Element(
        "series.instance.content",
        "",
        "",
        "below the configured DICOMweb base: address, size and SHA-1 of the Part 10 file, title",
    ),
)
"""In the order of the R5 definition."""


def markdown() -> str:
    """Return the table as Markdown, ending in a line feed."""
    lines = ["| DSTU2 | R4 | R5 | from |", "|---|---|---|---|"]
    for row in ELEMENTS:
        cells = (*(f"`{path}`" if path else "" for path in (row.dstu2, row.r4, row.r5)), row.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
