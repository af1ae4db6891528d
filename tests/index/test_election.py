"""Election knows no order of arrival."""

import itertools
from typing import Any

import pytest

from index.election import Opinion, elect


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
        opinions = [Opinion({"StudyDescription": value}, count) for value, count in order]
        assert expected == elect(opinions, "study", "1.2")[0]["StudyDescription"]


def test_absence_does_not_compete() -> None:
    opinions = [Opinion({}, 100), Opinion({"AccessionNumber": "A"}, 1)]
    assert ({"AccessionNumber": "A"}, []) == elect(opinions, "study", "1.2")


def test_the_earliest_moment_wins_as_a_whole() -> None:
    opinions = [
        Opinion({"SeriesDate": "20260102", "SeriesTime": "0900"}, 50),
        Opinion({"SeriesDate": "20260101", "SeriesTime": "2300", "TimezoneOffsetFromUTC": "+0100"}, 1),
        Opinion({"SeriesDate": "20260101"}, 2),
    ]
    for order in itertools.permutations(opinions):
        elected, _ = elect(order, "series", "1.2.3")
        assert {
            "SeriesDate": "20260101",
            "SeriesTime": "2300",
            "TimezoneOffsetFromUTC": "+0100",
        } == elected


@pytest.mark.parametrize("date", ["1999.01.02", "", "0000"])
def test_a_malformed_date_is_no_moment(date: str) -> None:
    assert {} == elect([Opinion({"StudyDate": date, "StudyTime": "10"}, 1)], "study", "1.2")[0]


def test_disagreements_are_kept_with_their_counts() -> None:
    opinions = [Opinion({"StudyDescription": "Head"}, 3), Opinion({"StudyDescription": "Neck"}, 4)]
    ((one,)) = elect(opinions, "study", "1.2")[1]
    assert ("study", "1.2", "StudyDescription", (("Neck", 4), ("Head", 3))) == (
        one.level,
        one.uid,
        one.keyword,
        one.values,
    )
