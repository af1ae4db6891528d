"""Whole studies against files that were read by hand."""

import json

import pytest

from index.imagingstudy import VERSIONS
from index.imagingstudy.mapping_table import ELEMENTS, markdown
from support.fhirjudges import judge, paths
from support.imagingstudies import GOLDEN, RULES, STUDIES, ct_two_series, resources


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", STUDIES)
def test_study_is_as_it_was_read(name: str, version: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.{version}.json").read_text(encoding="utf-8"))
    assert expected == resources(STUDIES[name](), version, RULES)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", STUDIES)
def test_study_is_valid(name: str, version: str) -> None:
    judge(resources(STUDIES[name](), version, RULES), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_same_study_gives_same_bytes(version: str) -> None:
    first, second = (json.dumps(resources(ct_two_series(), version, RULES)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("version", VERSIONS)
def test_elements_are_those_of_the_table(version: str) -> None:
    rows = {getattr(row, version).split(" ")[0] for row in ELEMENTS} - {""}
    assert rows == paths(resources(ct_two_series(), version, RULES)[0])


def test_table_is_markdown() -> None:
    lines = markdown().splitlines()
    assert "| DSTU2 | R4 | R5 | from |" == lines[0]
    assert len(ELEMENTS) + 2 == len(lines)
    assert {5} == {line.count("|") for line in lines}
