"""Election knows no order of arrival."""

import itertools
from typing import Any

import pytest

from index.election.values import Variant, body_variants, elect, series_before_study
from index.records import Series


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([("A", 1), ("B", 2)], "B"),
        ([("B", 2), ("A", 2)], "A"),
        ([("A", 3)], "A"),
        ([(["X"], 1), (["Y", "Z"], 1)], ["X"]),
    ],
)
def test_most_frequent_value_wins_and_ties_go_to_the_smallest(
    values: list[tuple[Any, int]], expected: Any
) -> None:
    for order in itertools.permutations(values):
        variants = [Variant({"StudyDescription": value}, count) for value, count in order]
        assert expected == elect(variants, "study", "1.2")[0]["StudyDescription"]


def test_absence_does_not_compete() -> None:
    variants = [Variant({}, 100), Variant({"AccessionNumber": "A"}, 1)]
    assert ({"AccessionNumber": "A"}, []) == elect(variants, "study", "1.2")


def test_the_earliest_moment_wins_as_a_whole() -> None:
    variants = [
        Variant({"SeriesDate": "20260102", "SeriesTime": "0900"}, 50),
        Variant({"SeriesDate": "20260101", "SeriesTime": "2300", "TimezoneOffsetFromUTC": "+0100"}, 1),
        Variant({"SeriesDate": "20260101"}, 2),
    ]
    for order in itertools.permutations(variants):
        elected, _ = elect(order, "series", "1.2.3")
        assert {
            "SeriesDate": "20260101",
            "SeriesTime": "2300",
            "TimezoneOffsetFromUTC": "+0100",
        } == elected


@pytest.mark.parametrize("date", ["1999.01.02", "", "0000"])
def test_a_malformed_date_is_no_moment(date: str) -> None:
    assert {} == elect([Variant({"StudyDate": date, "StudyTime": "10"}, 1)], "study", "1.2")[0]


def test_disagreements_are_kept_with_their_counts() -> None:
    variants = [Variant({"StudyDescription": "Head"}, 3), Variant({"StudyDescription": "Neck"}, 4)]
    ((one,)) = elect(variants, "study", "1.2")[1]
    assert ("study", "1.2", "StudyDescription", (("Neck", 4), ("Head", 3))) == (
        one.level,
        one.uid,
        one.keyword,
        one.values,
    )


def test_what_is_of_the_body_or_identity_stands_only_where_all_agree() -> None:
    variants = [Variant({"PatientSex": "F"}, 100), Variant({"PatientSex": "M"}, 1), Variant({}, 5)]
    elected, (one,) = elect(variants, "patient", "p")
    assert ({}, "PatientSex") == (elected, one.keyword)
    series = [Variant({"Laterality": "L", "Modality": "MG"}, 9), Variant({"Laterality": "R"}, 1)]
    assert {"Modality": "MG"} == elect(series, "series", "1.2.3")[0]
    study = [Variant({"AdmissionID": "V-1"}, 9), Variant({"AdmissionID": "V-2"}, 1)]
    assert {} == elect(study, "study", "1.2")[0]


def test_each_set_of_what_is_said_of_the_body_stands_once_in_any_order_of_arrival() -> None:
    variants = [
        Variant({"ImageLaterality": "R", "SeriesDescription": "A"}, 1),
        Variant({"ImageLaterality": "R", "SeriesDescription": "B"}, 1),
        Variant({"BodyPartExamined": "BREAST", "ImageLaterality": "L"}, 7),
        Variant({"SeriesDescription": "A"}, 2),
        Variant({"ImageLaterality": "U"}, 0),
    ]
    expected = ({"BodyPartExamined": "BREAST", "ImageLaterality": "L"}, {"ImageLaterality": "R"})
    for order in itertools.permutations(variants):
        assert expected == body_variants(order)


@pytest.mark.parametrize(
    ("study", "one", "is_listed"),
    [
        (("20240110", "101500"), ("20240110", "101400"), True),
        (("20240110", "1015"), ("20240110", "101500"), False),
        (("20240110", "101500"), ("20240110", ""), False),
        (("20240110", ""), ("20240110", "080000"), False),
        (("20240110", "101500"), ("20240109", ""), True),
        (("20240110", "101500"), ("1999.01.02", "08"), False),
        (("", ""), ("20240110", "08"), False),
    ],
)
def test_a_series_that_starts_before_its_study_is_listed(
    study: tuple[str, str], one: tuple[str, str], *, is_listed: bool
) -> None:
    attributes = dict(zip(("StudyDate", "StudyTime"), study, strict=True))
    series = Series("1.2.3", dict(zip(("SeriesDate", "SeriesTime"), one, strict=True)), [])
    found = series_before_study("1.2", attributes, [series])
    assert (["started"] if is_listed else []) == [disagreed.keyword for disagreed in found]
