"""No builder asks for an attribute that nobody keeps: what it would say is silently missing otherwise."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import tag_for_keyword

from index.dicom.attributes import LEVELS, WANTED, Attribute
from index.imagingstudy import VERSIONS, build
from index.imagingstudy.elements import orders
from index.orders.hl7.mapping import KEYWORDS as HL7
from index.query.worklist_keys import KEYS
from index.records import Attributes, Instance, Patient, Series, Study
from support.imagingstudies import RULES, STUDIES

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


def test_what_is_asked_of_orders_is_known_of_orders() -> None:
    """HL7 says it, or the worklist may be asked for it: orders in FHIR and in files have the same."""
    written = re.findall(r'"([A-Z][A-Za-z]+)"', Path(orders.__file__).read_text(encoding="utf-8"))
    asked = {word for word in written if tag_for_keyword(word)}
    assert {"AccessionNumber", "RequestedProcedurePriority"} <= asked
    assert asked <= HL7 | set(keys(KEYS))


def keys(table: Mapping[Any, Any]) -> Iterator[str]:
    for one in table.values():
        yield one.keyword
        yield from keys(one.items)
