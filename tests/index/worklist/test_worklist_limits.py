"""What a query leaves out: the oldest, never today's, and never unsaid (PS3.4 Table K.4-1, A700)."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from index import Index, Source, WorklistSettings
from index.orders.dicom import order_of
from index.worklist import selection
from support.filling import STORAGE
from support.worklist import item, query, selected

OLD = 12


def day(offset: int) -> str:
    return f"{date.today() + timedelta(days=offset):%Y%m%d}"  # noqa: DTZ011  the scanner's local day


@pytest.fixture(params=[None, 7], ids=["never", "a week"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    """An index with many steps of last quarter that nobody ended, and one of today."""
    settings = WorklistSettings(expire_days=request.param, limit=5)
    with Index(tmp_path / "data", STORAGE, worklist=settings) as index:
        for number in range(OLD):
            add(index, number, day(number - 100))
        add(index, 900, day(0), AccessionNumber="TODAY")
        yield index


def add(index: Index, number: int, when: str, **changes: Any) -> None:
    dataset = item(number, ScheduledProcedureStepStartDate=when, **changes)
    index.orders.add(order_of(dataset, Source.CLI, "", f"o{number}"))


def asked(index: Index, **wanted: Any) -> tuple[list[str], bool]:
    found = index.worklist.find(query(**wanted), "CT1")
    return [one.RequestedProcedureID for one in found], found.is_cut_short


def test_steps_that_nobody_ended_do_not_hide_todays(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "LIMIT", OLD - 2)
    found, is_cut_short = asked(index, ScheduledStationAETitle="CT1")
    assert "RP900" == found[0]
    assert (is_cut_short, len(found)) in ((True, 5), (False, 1))


@pytest.mark.parametrize(
    "wanted",
    [
        {"RequestedProcedureID": "RP900"},
        {"ScheduledProcedureStepID": "SPS900"},
        {"AccessionNumber": "TODAY"},
        {"ScheduledProcedureStepStartDate": day(0)},
        {
            "ScheduledProcedureStepDescription": "Head native",
            "PatientBirthDate": "19700101",
            "PatientID": "P900",
        },
    ],
    ids=lambda wanted: next(iter(wanted)),
)
def test_a_key_finds_what_stands_behind_the_limit(
    index: Index, wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "LIMIT", OLD - 2)
    assert (["RP900"], False) == asked(index, **wanted)


def test_what_was_not_looked_at_is_said(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    add(index, 901, day(0), PatientBirthDate="20000101")
    add(index, 902, day(1), PatientBirthDate="20010101")
    monkeypatch.setattr(selection, "LIMIT", 2)
    assert (["RP901"], True) == asked(index, PatientBirthDate="20000101")


def test_no_more_than_the_limit_is_not_cut_short(index: Index) -> None:
    for number in range(901, 905):
        add(index, number, day(0))
    wanted = {"ScheduledProcedureStepStartDate": f"{day(0)}-"}
    assert ([f"RP{number}" for number in range(900, 905)], False) == asked(index, **wanted)
    add(index, 905, day(3))
    assert ([f"RP{number}" for number in range(900, 905)], True) == asked(index, **wanted)


def test_the_nearest_in_time_come_first(tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE) as index:
        days = {1: 40, 2: 0, 3: -1, 4: -2, 5: -50, 6: 1}
        for number, offset in days.items():
            add(index, number, day(offset))
        add(index, 8, day(0), ScheduledProcedureStepStartTime="0815")
        assert [f"RP{number}" for number in (3, 8, 2, 6, 1, 4, 5)] == asked(index)[0]


def test_a_step_without_a_date_does_not_expire(index: Index) -> None:
    add(index, 901, "")
    assert (["RP901"], False) == asked(index, PatientID="P901")


def test_several_batches(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BATCH", 4)
    expected = {f"P{number}" for number in range(OLD)} | {"P900"}
    assert expected == {one.attributes["PatientID"] for one in selected(index)}
