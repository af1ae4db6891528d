"""To whom an instance is forwarded: the rules of [[routes]]."""

from typing import Any

import pytest
from pydantic import ValidationError

from index import Origin, RouteSettings
from index.database.instance_rows import StoredObject
from index.forwarding.rules import Routes
from index.records import Header

CT, ENHANCED_CT, SR = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.88.11",
)


def stored(
    modality: str | None = "CT",
    *,
    sop_class: str = CT,
    study: str | None = "Head routine",
    series: str | None = "Axial 5.0",
    calling: str = "SCANNER",
    called: str = "ARCHIVE",
) -> StoredObject:
    of_study = {"StudyDescription": study} if study else {}
    of_series = {"Modality": modality} if modality else {}
    of_series |= {"SeriesDescription": series} if series else {}
    header = Header(sop_class, "1.2", "1.3", "1.4", {}, of_study, of_series)
    return StoredObject(header, Origin(calling, called), "1.2.840.10008.1.2.1", "objects/1", 1, "", 1)


@pytest.mark.parametrize(
    ("rules", "one", "is_sent"),
    [
        ({}, stored(), True),
        ({}, stored(None, study=None, series=None, calling=""), True),
        ({"modality": "CT"}, stored(), True),
        ({"modality": "ct"}, stored(), True),
        ({"modality": ["MR", "CT"]}, stored(), True),
        ({"modality": ["MR", "PT"]}, stored(), False),
        ({"modality": "C"}, stored(), False),
        ({"modality": "CT"}, stored(None), False),
        ({"modality": "*"}, stored(None), True),
        ({"modality": "?*"}, stored(None), False),
        ({"calling_aet": "SCAN*"}, stored(), True),
        ({"calling_aet": "scan*"}, stored(), False),
        ({"calling_aet": "SCANNER"}, stored(calling="SCANNER "), True),
        ({"calling_aet": "?*"}, stored(calling=""), False),
        ({"called_aet": "ARCHIV?"}, stored(), True),
        ({"called_aet": "ARCHIVE?"}, stored(), False),
        ({"sop_class": CT}, stored(), True),
        ({"sop_class": CT}, stored(sop_class=ENHANCED_CT), False),
        ({"sop_class": f"{CT}*"}, stored(sop_class=ENHANCED_CT), True),
        ({"sop_class": "CTImageStorage"}, stored(), True),
        ({"sop_class": "CTImageStorage"}, stored(sop_class=ENHANCED_CT), False),
        ({"sop_class": "*CTImageStorage"}, stored(sop_class=ENHANCED_CT), True),
        ({"sop_class": "*SR*"}, stored(), False),
        ({"sop_class": "BasicText*"}, stored(sop_class=SR), True),
        ({"description": "head*"}, stored(), True),
        ({"description": "AXIAL*"}, stored(), True),
        ({"description": "axial"}, stored(), False),
        # Only * and ? are special.
        ({"description": "[Aa]xial 5.0"}, stored(), False),
        ({"description": "axial 5?0"}, stored(series="Axial 5\n0"), True),
        ({"description": "axial 5.0"}, stored(series="Axial 5x0"), False),
        ({"modality": "CT", "description": "*knee*"}, stored(), False),
        ({"modality": "CT", "calling_aet": "SCANNER", "description": ["*knee*", "*head*"]}, stored(), True),
    ],
)
def test_rules(rules: dict[str, Any], one: StoredObject, *, is_sent: bool) -> None:
    routes = Routes([RouteSettings(to="PACS", **rules)])
    assert (["PACS"] if is_sent else []) == list(routes.peers_for(one))


def test_each_peer_once_and_never_the_sender() -> None:
    routes = Routes(
        [RouteSettings(to=["A", "B "]), RouteSettings(to=["B", "SCANNER"]), RouteSettings(to="C")]
    )
    assert ["A", "B", "C"] == list(routes.peers_for(stored()))
    assert ["B", "SCANNER", "C"] == list(routes.peers_for(stored(calling="A ")))
    assert ["A", "B", "SCANNER", "C"] == routes.peers


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "Field required"),
        ({"to": []}, "at least 1"),
        ({"to": ["A", "A"]}, "A is given twice"),
        ({"to": "A\\B"}, "should match"),
        ({"to": "A", "modality": ""}, "is empty"),
        ({"to": "A", "modality": ["CT", "CT"]}, "CT is given twice"),
        ({"to": "A", "modalities": "CT"}, "Extra inputs"),
        ({"to": "A", "sop_class": "CTImage"}, "neither a UID nor the keyword of a SOP Class"),
        ({"to": "A", "modality": 1}, "tuple"),
    ],
)
def test_bad_routes(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        RouteSettings(**values)
