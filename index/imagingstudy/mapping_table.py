"""Every element of ImagingStudy that is filled: its path in each version, its builder, and its source.

The attributes of an element follow from index/dicom/attributes.py, whose rows name their elements. A new
attribute has its row there, and is used by the builder of its element; a new element has its row here.

`python -m index.imagingstudy.mapping_table` prints the table of the README.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from index.dicom.attributes import Attribute, attributes_of
from index.imagingstudy.context import BuildContext
from index.imagingstudy.elements import (
    accessions,
    anatomy,
    modality,
    orders,
    people,
    procedures,
    related,
    series,
    study,
)
from index.imagingstudy.versions import dstu2, r4


@dataclass(frozen=True, slots=True)
class Element:
    """A row: the path in each version (empty: that version has none), the builder, and a note on the source.

    A word in brackets after a path tells entries of one repeating element apart.
    """

    dstu2: str
    r4: str
    r5: str
    builder: Callable[..., Any]
    note: str = ""

    @property
    def name(self) -> str:
        """The path by which index/dicom/attributes.py names the element: that of the newest version."""
        return self.r5 or self.r4 or self.dstu2

    @property
    def source(self) -> str:
        """The attributes with their tags, and the note."""
        return "; ".join(filter(None, (", ".join(map(_with_tag, attributes_of(self.name))), self.note)))


def _with_tag(attribute: Attribute) -> str:
    tag = f"{attribute.tag:08X}"
    return f"{attribute.keyword} ({tag[:4]},{tag[4:]})"


def _same(path: str, builder: Callable[..., Any], note: str = "") -> Element:
    """Return the row of an element that has one path in all versions."""
    return Element(path, path, path, builder, note)


ELEMENTS = (
    _same("id", r4.imaging_study),
    Element("uid", "identifier [uid]", "identifier [uid]", r4.identifiers, "`urn:oid:` in front"),
    Element(
        "accession",
        "identifier [ACSN]",
        "identifier [ACSN]",
        accessions.accessions,
        "also of the orders: all of them, in DSTU2 the others as identifier",
    ),
    _same("identifier", study.study_id),
    Element("", "status", "status", orders.status, "withdrawal, instances, procedure steps, orders"),
    Element(
        "modalityList",
        "modality",
        "modality",
        modality.modalities,
        "the distinct ones of the series: acquisition (CID 29), in R5 all",
    ),
    Element("patient", "subject", "subject", people.patient),
    _same(
        "started",
        BuildContext.moment,
        "or the earliest series; the zone of the instances or the configured one, or date alone",
    ),
    Element("", "encounter", "encounter", related.encounter, "else the order's: a logical reference"),
    Element(
        "order",
        "basedOn",
        "basedOn",
        accessions.based_on,
        "the orders that the study was matched to, in R4 and R5 with their Accession Number; every other "
        "Accession Number as a logical reference",
    ),
    Element("", "", "partOf", procedures.procedures, "of procedure steps (MPPS) before all"),
    _same("referrer", study.referrer, "else the order's"),
    Element("interpreter", "interpreter", "", study.interpreters, "DSTU2 holds the first"),
    Element("availability", "", "", series.availability, "the worst of the instances, ONLINE without any"),
    Element(
        "url",
        "endpoint",
        "endpoint",
        related.endpoints,
        "the configured DICOMweb base: address of the study, or WADO-RS Endpoint",
    ),
    _same("numberOfSeries", r4.counts, "counted"),
    _same("numberOfInstances", r4.counts, "counted"),
    Element(
        "procedure", "procedureReference", "", procedures.procedures, "of procedure steps (MPPS) before all"
    ),
    Element("", "procedureCode", "procedure", study.procedure_codes, "else the order's"),
    Element("", "location", "location", related.location, "else the one of a procedure step (MPPS)"),
    Element("", "reasonCode", "reason", study.reasons, "else the order's"),
    _same("description", study.description, "the first that is there; else the order's"),
    _same("series.uid", r4.all_series),
    _same("series.number", series.number),
    _same("series.modality", modality.modality, "OT where it is missing"),
    _same("series.description", series.description),
    _same("series.numberOfInstances", r4.all_series, "counted"),
    Element("series.availability", "", "", series.availability, "as for the study"),
    Element("series.url", "series.endpoint", "series.endpoint", related.endpoints, "as for the study"),
    _same(
        "series.bodySite",
        anatomy.body_site,
        "the region, of frames too, else the body part by PS3.16 Annex L; nothing where instances differ",
    ),
    _same(
        "series.laterality",
        anatomy.laterality,
        "of the images and frames, else of the series; bilateral where both sides occur, nothing where "
        "instances differ otherwise",
    ),
    Element(
        "",
        "series.specimen",
        "series.specimen",
        related.specimens,
        "identifier, its issuer, specimen type",
    ),
    _same("series.started", series.started),
    Element(
        "",
        "series.performer.function",
        "series.performer.function",
        r4.performers,
        "PRF for the performing physician, SPRF for the operator",
    ),
    Element("", "series.performer.actor", "series.performer.actor", r4.performers),
    _same("series.instance.uid", r4.all_series),
    _same("series.instance.number", series.instances),
    _same("series.instance.sopClass", series.instances, "its name is the display of R4 and R5"),
    Element("series.instance.type", "", "", series.class_name, "its name (PS3.6 Annex A)"),
    _same(
        "series.instance.title",
        series.titles,
        "label, else concept name, document title, image type",
    ),
    Element(
        "series.instance.content",
        "",
        "",
        dstu2.imaging_study,
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
