"""The attributes that the builders use are those that the header reader keeps, level by level."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import tag_for_keyword

import index.imagingstudy
from index.dicom.attributes import LEVELS, WANTED, Attribute
from index.imagingstudy import VERSIONS, build
from index.imagingstudy.elements import orders, procedures
from index.imagingstudy.mapping_table import ELEMENTS, markdown
from index.orders.hl7.mapping import KEYWORDS as HL7
from index.query.worklist_keys import KEYS
from index.records import Attributes, Instance, Patient, Series, Study
from support.imagingstudies import RULES, STUDIES

IMAGINGSTUDY = Path(index.imagingstudy.__file__).parent

Kept = Mapping[str, Any]
"""Keywords that are kept, and for a sequence those of its items."""


def kept(table: Mapping[int, Attribute], level: str) -> Kept:
    return {one.keyword: items(one.items) for one in table.values() if level in one.levels}


def items(table: Mapping[int, Attribute]) -> Kept:
    return {one.keyword: items(one.items) for one in table.values()}


# What values.py makes of the frames' groups.
FRAMES = {"FrameAnatomySequence": {"AnatomicRegionSequence": {}, "FrameLaterality": {}}}
KEPT = {level: kept(WANTED, level) for level in LEVELS}
KEPT["series"] = {**KEPT["series"], **FRAMES}


class Asked(Mapping[str, Any]):
    """Attributes that remember which keywords they were asked for, and fail for one that is never there."""

    def __init__(self, attributes: Attributes, known: Kept, where: str) -> None:
        self._attributes = attributes
        self._known = known
        self._where = where

    def __getitem__(self, keyword: str) -> Any:
        assert keyword in self._known, f"{keyword} is never kept of {self._where}"
        value = self._attributes[keyword]
        inner = self._known[keyword]
        if not isinstance(value, list) or not inner:
            return value
        return [Asked(one, inner, f"{self._where}, {keyword}") for one in value]

    def __contains__(self, keyword: object) -> bool:
        assert keyword in self._known, f"{keyword} is never kept of {self._where}"
        return keyword in self._attributes

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)


def watched(study: Study) -> Study:
    """Return the study with levels that know what is kept of them."""

    def of(attributes: Attributes, level: str) -> Attributes:
        return Asked(attributes, KEPT[level], level)

    series = [
        Series(
            one.uid,
            of(one.attributes, "series"),
            [
                Instance(i.uid, i.sop_class_uid, i.size, i.sha1, of(i.attributes, "instance"))
                for i in one.instances
            ],
        )
        for one in study.series
    ]
    return Study(
        study.uid,
        Patient(study.patient.id, of(study.patient.attributes, "patient")),
        of(study.attributes, "study"),
        series,
        orders=study.orders,
        steps=study.steps,
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", STUDIES)
def test_what_is_asked_of_instances_is_kept_of_them(name: str, version: str) -> None:
    study = STUDIES[name]()
    assert build(study, version, RULES) == build(watched(study), version, RULES)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_asked_of_a_study_of_which_nothing_is_said(version: str) -> None:
    study = STUDIES["ct_two_series"]()
    bare = Study(
        study.uid, Patient("p", {}), {}, [Series("1.2.3.4", {}, [Instance("1.2", "1.3", 1, "", {})])]
    )
    build(watched(bare), version, RULES)


def keys(table: Mapping[Any, Any]) -> Iterator[str]:
    for one in table.values():
        yield one.keyword
        yield from keys(one.items)


def keywords(module: Path) -> set[str]:
    """Return the DICOM keywords that a module writes; Location is a resource type."""
    words = re.findall(r'"([A-Z][A-Za-z0-9]+)"', module.read_text(encoding="utf-8"))
    return {word for word in words if tag_for_keyword(word)} - {"Location"}


def every(table: Mapping[int, Attribute]) -> set[str]:
    """Return the keywords of a table and of all its sequences."""
    return {word for one in table.values() for word in (one.keyword, *every(one.items))}


KEPT_OF_ORDERS = HL7 | set(keys(KEYS))
MODULES = sorted(IMAGINGSTUDY.rglob("*.py"))


def test_what_is_asked_of_orders_is_known_of_orders() -> None:
    """HL7 says it, or the worklist may be asked for it: orders in FHIR and in files have the same."""
    asked = keywords(Path(orders.__file__))
    assert {"AccessionNumber", "RequestedProcedurePriority"} <= asked
    assert asked <= KEPT_OF_ORDERS


@pytest.mark.parametrize("module", MODULES, ids=[module.stem for module in MODULES])
def test_every_keyword_of_a_module_is_kept(module: Path) -> None:
    """Whatever studies the tests build: of instances or of orders. Of a performed step all is kept."""
    known = every(WANTED) | KEPT_OF_ORDERS
    if module == Path(procedures.__file__):
        known |= {"PerformedProcedureStepDescription", "PerformedSeriesSequence"}
    assert set() == keywords(module) - known


def test_a_keyword_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the type of a specimen was, which no test study had."""
    specimens = WANTED[tag_for_keyword("SpecimenDescriptionSequence")]
    kind = tag_for_keyword("SpecimenTypeCodeSequence")
    others = {tag: one for tag, one in specimens.items.items() if tag != kind}
    monkeypatch.setitem(WANTED, specimens.tag, replace(specimens, items=others))
    related = IMAGINGSTUDY / "elements" / "related.py"
    assert {"SpecimenTypeCodeSequence"} == keywords(related) - every(WANTED) - KEPT_OF_ORDERS


@pytest.mark.parametrize("attribute", [one for one in WANTED.values() if one.elements and one.levels])
def test_every_attribute_of_an_element_is_used(attribute: Attribute) -> None:
    """The rows of attributes.py name elements of the mapping table, and a builder reads the attribute."""
    assert set(attribute.elements) <= {element.name for element in ELEMENTS}
    assert attribute.keyword in set().union(*map(keywords, MODULES))


def test_every_element_has_a_source_and_its_builder_is_of_this_package() -> None:
    for element in ELEMENTS:
        assert element.source, element
        assert element.builder.__module__.startswith("index.imagingstudy."), element


@pytest.mark.parametrize("module", MODULES, ids=[module.stem for module in MODULES])
def test_tags_in_docstrings_are_those_of_the_standard(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    for word, tag in re.findall(r"\b([A-Z][a-z]+[A-Z]\w+) \(([0-9A-F]{4},[0-9A-F]{4})\)", text):
        assert tag_for_keyword(word) == int(tag.replace(",", ""), 16), f"{word} ({tag})"


def test_the_table_follows_from_a_new_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = tag_for_keyword("PatientPosition")
    row = Attribute("PatientPosition", tag, "CS", levels=("series",), elements=("series.description",))
    monkeypatch.setitem(WANTED, tag, row)
    assert "SeriesDescription (0008,103E), PatientPosition (0018,5100) |" in markdown()
