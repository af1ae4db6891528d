"""Coding schemes: SNOMED-RT style codes become SNOMED CT (PS3.16 Annex J), whichever element holds them."""

from typing import Any

import pytest

from index.imagingstudy import VERSIONS, Rules, build
from index.imagingstudy.codes import coding
from index.imagingstudy.terminology.snomed import _table
from index.imagingstudy.terminology.systems import DIALECTS, SNOMED
from index.records import Order, Patient, ProcedureStep, Study
from support.fhirjudges import judge
from support.imagingstudies import CT, RULES, code, instance, series

STOMACH = code("T-57000", "SRT", "Stomach")

_MULTIPLY = """
0123456789 1234067895 2340178956 3401289567 4012395678 5987604321 6598710432 7659821043 8765932104 9876543210
"""
_PERMUTE = "0123456789 1576283094 5803796142 8916043527 9453126870 4286573901 2793806415 7046913258"


def verhoeff(digits: str) -> bool:
    """Whether the check digit of a SNOMED CT identifier is right."""
    multiply, permute = _MULTIPLY.split(), _PERMUTE.split()
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(multiply[check][int(permute[place % 8][int(digit)])])
    return check == 0


def of(value: str, scheme: str, rules: Rules = RULES, **more: str) -> dict[str, str]:
    return coding({**code(value, scheme, "Meaning"), **more}, rules, DIALECTS["r4"])


def test_the_table_is_whole() -> None:
    assert 7990 == len(_table()) == len(set(_table().values()))
    assert all(verhoeff(concept) for concept in _table().values())


@pytest.mark.parametrize(
    ("value", "scheme", "expected"),
    [
        ("T-57000", "SRT", "69695003"),
        ("T-57000", "99SDM", "69695003"),
        ("T-57000", "SNM3", "69695003"),
        ("t-57000", "SRT", "69695003"),
        ("T-57000", "SCT", "69695003"),
        ("69695003", "SCT", "69695003"),
        ("69695003", "SRT", "69695003"),
        ("R-10226", "SRT", "399368009"),  # CID 4010, medio-lateral oblique
        ("G-A100", "SRT", "24028007"),  # CID 244, right
        ("71388002:363704007=69695003", "SCT", "71388002:363704007=69695003"),
    ],
)
def test_snomed_codes_are_snomed_ct(value: str, scheme: str, expected: str) -> None:
    found = of(value, scheme, CodingSchemeVersion="V1")
    assert (SNOMED, expected, "Meaning") == (found["system"], found["code"], found["display"])
    assert ("version" in found) == (value == expected)


@pytest.mark.parametrize(("value", "scheme"), [("T-ZZZZZ", "SRT"), ("T-ZZZZZ", "SCT"), ("12", "SRT")])
def test_what_the_table_does_not_have_stands_without_a_system(value: str, scheme: str) -> None:
    assert {"code": value, "display": "Meaning"} == of(value, scheme)


def test_the_configuration_goes_first() -> None:
    found = of("T-57000", "SRT", Rules(coding_systems={"SRT": "http://example.org/srt"}))
    assert ("http://example.org/srt", "T-57000") == (found["system"], found["code"])


def codes(node: Any) -> list[dict[str, str]]:
    """Return every Coding below a node that has the meaning of the one we sent."""
    if isinstance(node, list):
        return [found for one in node for found in codes(one)]
    if not isinstance(node, dict):
        return []
    own = [node] if "code" in node and node.get("display") == "Stomach" else []
    return own + [found for one in node.values() for found in codes(one)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_coded_element_has_them(version: str) -> None:
    """Procedure, reason, body site, specimen, and those of the order and the performed step."""
    item = {"RequestedProcedureCodeSequence": [STOMACH], "ReasonForRequestedProcedureCodeSequence": [STOMACH]}
    specimen = {"SpecimenIdentifier": "S1", "SpecimenTypeCodeSequence": [STOMACH]}
    study = Study(
        "1.2.3",
        Patient("p", {}),
        {"ProcedureCodeSequence": [STOMACH], **item},
        [
            series(
                "1.2.3.4",
                [instance("1.2.3.4.5", CT)],
                Modality="CT",
                AnatomicRegionSequence=[STOMACH],
                SpecimenDescriptionSequence=[specimen],
            )
        ],
        orders=[Order("order", "COMPLETED", item)],
        steps=[ProcedureStep("1.2.3.9", "COMPLETED", {"ProcedureCodeSequence": [STOMACH]})],
    )
    made = build(study, version, RULES)
    judge(made.resources, version)
    found = codes(made.resources)
    assert len(found) >= {"dstu2": 4, "r4": 7, "r5": 7}[version]
    assert {(SNOMED, "69695003")} == {(one.get("system"), one["code"]) for one in found}
    assert not any("scheme" in doubt for doubt in made.issues)
