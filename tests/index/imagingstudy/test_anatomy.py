"""Side and body part: what is true of all instances and frames, or nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from index import Index
from index.imagingstudy import VERSIONS, Built, build
from index.records import Attributes, Patient, Series, Study
from support.dicom import instance as data_set
from support.filling import STORAGE, files, keep
from support.imagingstudies import CT, RULES, code, instance

LIVER = code("10200004", "SCT", "Liver")
KIDNEY = code("64033007", "SCT", "Kidney")
SIDE = "series 1.2.3.4: its instances or frames differ in laterality, left out"
PART = "series 1.2.3.4: its instances or frames show several body parts, left out"
LEFT, RIGHT, BILATERAL = "419161000", "419465000", "51440002"


def of(*body: Attributes, version: str = "r4") -> Built:
    series = Series("1.2.3.4", {}, [instance("1.2.3.4.5", CT)], body)
    return build(Study("1.2.3", Patient("p", {}), {}, [series]), version, RULES)


def coded(element: str, *body: Attributes, version: str = "r4") -> str | None:
    found = of(*body, version=version).resources[0]["series"][0].get(element)
    if found and version == "r5":
        concept = found["concept"] if element == "bodySite" else found
        found = concept["coding"][0] if "coding" in concept else {"display": concept["text"]}
    return found and found.get("code", found.get("display"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # PS3.3 C.7.6.1.1.1 (Image Laterality): a mammography series has images of both sides.
        ([{"ImageLaterality": "R"}, {"ImageLaterality": "L"}], BILATERAL),
        ([{"ImageLaterality": "R"}, {"Laterality": "L"}], BILATERAL),
        ([{"ImageLaterality": "B"}, {"ImageLaterality": "L"}], BILATERAL),
        (
            [{"ImageLaterality": "R", "Laterality": "R"}, {"ImageLaterality": "L", "Laterality": "R"}],
            BILATERAL,
        ),
        ([{"FrameAnatomySequence": [{"FrameLaterality": "R"}, {"FrameLaterality": "L"}]}], BILATERAL),
        ([{"ImageLaterality": "r"}, {"ImageLaterality": "R", "BodyPartExamined": "KNEE"}], RIGHT),
        ([{"ImageLaterality": "L"}, {"BodyPartExamined": "KNEE"}], LEFT),
        ([{"ImageLaterality": "U"}, {"ImageLaterality": "L"}], None),
        ([{"ImageLaterality": "U"}, {"ImageLaterality": "L"}, {"ImageLaterality": "R"}], None),
        ([{"ImageLaterality": "LEFT"}, {"ImageLaterality": "L"}], None),
        ([{"ImageLaterality": "R", "Laterality": "L"}], None),
        ([{"FrameAnatomySequence": [{"FrameLaterality": "R"}], "Laterality": "L"}], None),
        ([{"ImageLaterality": "R", "Laterality": "U"}], None),
        ([{"ImageLaterality": "U"}], "Unpaired"),
        ([{}], None),
    ],
)
def test_side(body: list[Attributes], expected: str | None) -> None:
    assert expected == coded("laterality", *body)
    assert (SIDE in of(*body).issues) == (expected is None and body != [{}])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([{"AnatomicRegionSequence": [LIVER]}, {"AnatomicRegionSequence": [KIDNEY]}], None),
        ([{"AnatomicRegionSequence": [LIVER, KIDNEY]}], None),
        ([{"AnatomicRegionSequence": [LIVER]}, {"BodyPartExamined": "KIDNEY"}], None),
        ([{"BodyPartExamined": "KNEE"}, {"BodyPartExamined": "ANKLE"}], None),
        ([{"BodyPartExamined": "KNEE"}, {"BodyPartExamined": "my own words"}], None),
        (
            [
                {
                    "FrameAnatomySequence": [
                        {"AnatomicRegionSequence": [LIVER]},
                        {"AnatomicRegionSequence": [KIDNEY]},
                    ]
                }
            ],
            None,
        ),
        # The same thing in other words is the same thing.
        ([{"AnatomicRegionSequence": [LIVER]}, {"BodyPartExamined": "LIVER"}], "10200004"),
        ([{"BodyPartExamined": "C SPINE"}, {"BodyPartExamined": "CSPINE"}], "122494005"),
        ([{"BodyPartExamined": "my own"}, {"BodyPartExamined": "My Own"}], "my own"),
        (
            [
                {"AnatomicRegionSequence": [LIVER]},
                {"AnatomicRegionSequence": [{**LIVER, "CodeMeaning": "l."}]},
            ],
            "10200004",
        ),
        # What is true of all stays, and who says nothing does not disagree.
        (
            [
                {"AnatomicRegionSequence": [LIVER], "BodyPartExamined": "ABDOMEN"},
                {"AnatomicRegionSequence": [KIDNEY], "BodyPartExamined": "ABDOMEN"},
            ],
            "818981001",
        ),
        ([{"AnatomicRegionSequence": [LIVER], "BodyPartExamined": "ABDOMEN"}], "10200004"),
        ([{"AnatomicRegionSequence": [LIVER]}, {"ImageLaterality": "L"}], "10200004"),
    ],
)
def test_body_part(body: list[Attributes], expected: str | None) -> None:
    assert expected == coded("bodySite", *body)
    assert (PART in of(*body).issues) == (expected is None)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_version_chooses(version: str) -> None:
    body = ({"BodyPartExamined": "KNEE"}, {"BodyPartExamined": "ANKLE", "ImageLaterality": "U"})
    assert coded("bodySite", *body, version=version) is None
    assert "Unpaired" == coded("laterality", *body, version=version)


def test_all_specimens_of_a_series_are_named() -> None:
    one, two = ({"SpecimenDescriptionSequence": [{"SpecimenIdentifier": name}]} for name in ("S1", "S2"))
    assert 2 == len(of(one, two).resources[0]["series"][0]["specimen"])


# Through the index: what is kept of many instances, in any order of arrival.


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path, STORAGE) as made:
        yield made


def series_of(index: Index, *datasets: Dataset) -> dict[str, Any]:
    for dataset in datasets:
        keep(index, dataset)
    index.publish()
    (path,) = index.data.glob("fhir/r4/ImagingStudy/*.json")
    return json.loads(path.read_bytes())["series"][0]


def region(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


@pytest.mark.parametrize("sides", ["RLRL", "LLLR", "RLLL"])
def test_a_mammography_series_of_both_sides_is_bilateral(index: Index, sides: str) -> None:
    found = series_of(
        index, *(data_set(number=n, ImageLaterality=side) for n, side in enumerate(sides, start=1))
    )
    assert BILATERAL == found["laterality"]["code"]
    _, disagreements = index.resource(found["uid"].rpartition(".")[0])
    assert [("ImageLaterality", 4)] == [(d.keyword, sum(n for _, n in d.values)) for d in disagreements]


def test_an_ultrasound_series_of_several_organs_has_no_body_part(index: Index) -> None:
    organs = [("10200004", "Liver"), ("64033007", "Kidney"), ("78961009", "Spleen")]
    found = series_of(
        index,
        *(
            data_set(number=n, AnatomicRegionSequence=region(value, "SCT", meaning))
            for n, (value, meaning) in enumerate(organs, start=1)
        ),
    )
    assert "bodySite" not in found


def frames(count: int, *anatomies: tuple[str, str]) -> Dataset:
    """Return a multi-frame object whose frames have these sides and regions (SCT codes) in turn."""
    groups = []
    for n in range(count):
        side, value = anatomies[n % len(anatomies)]
        anatomy, group = Dataset(), Dataset()
        anatomy.FrameLaterality = side
        anatomy.AnatomicRegionSequence = region(value, "SCT", "a region")
        group.FrameAnatomySequence = [anatomy]
        groups.append(group)
    return data_set(NumberOfFrames=str(count), PerFrameFunctionalGroupsSequence=groups)


@pytest.mark.parametrize(
    ("dataset", "side", "part"),
    [
        (frames(3, ("R", "72696002")), RIGHT, "72696002"),
        (frames(3, ("R", "72696002"), ("L", "72696002")), BILATERAL, "72696002"),
        (frames(200, ("L", "10200004"), ("L", "64033007")), LEFT, None),
        (frames(2, ("U", "10200004"), ("L", "64033007")), None, None),
    ],
)
def test_frames_count_like_instances(
    index: Index, dataset: Dataset, side: str | None, part: str | None
) -> None:
    found = series_of(index, dataset)
    assert (side, part) == (found.get("laterality", {}).get("code"), found.get("bodySite", {}).get("code"))


def test_where_instances_disagree_on_sex_or_birth_date_the_patient_has_none(index: Index) -> None:
    """DESIGN.md, Promises: of the patient's identity the resource says what is true of all, or nothing."""
    series_of(
        index,
        data_set(number=1, PatientSex="F", PatientBirthDate="19700101"),
        data_set(number=2, PatientSex="F", PatientBirthDate="19700101"),
        data_set(number=3, PatientSex="M", PatientBirthDate="19710101"),
        data_set(number=4, PatientSex="", PatientBirthDate=""),
    )
    (path,) = index.data.glob("fhir/r4/Patient/*.json")
    patient = json.loads(path.read_bytes())
    assert "P1" == patient["identifier"][0]["value"]
    assert not {"gender", "birthDate"} & set(patient)


def test_the_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    datasets = [
        data_set(number=1, ImageLaterality="R", PatientSex="F"),
        data_set(number=2, ImageLaterality="L", BodyPartExamined="BREAST", PatientSex="M"),
        data_set(number=3, AnatomicRegionSequence=region("76752008", "SCT", "Breast")),
        data_set(number=4, AnatomicRegionSequence=region("T-04000", "SRT", "Mamma"), PatientID="P2"),
    ]
    written = []
    for number, order in enumerate((datasets, datasets[::-1], datasets[2:] + datasets[:2])):
        with Index(tmp_path / str(number), STORAGE) as index:
            found = series_of(index, *order)
            written.append(files(index.data / "fhir"))
    assert "76752008" == found["bodySite"]["code"]
    assert written[0] == written[1] == written[2]
