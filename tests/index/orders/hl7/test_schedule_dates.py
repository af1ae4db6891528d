"""An order without a date is one of now; one whose date cannot be read is answered AE with the field."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from pydicom.dataset import Dataset

from index import Index, NewOrder, Source
from index.orders.dicom import BadItem, order_of
from index.orders.fhir import BadResource, orders_of
from support.hl7 import message, msh, orm, pid
from support.worklist import selected

Told = Callable[..., list[str]]


def dated(place: str, value: str) -> bytes:
    """Return an order that says its date in one place."""
    orc, obr, tq1 = [""] * 16, [""] * 37, ""
    orc[:3], obr[:5] = ["ORC", "NW", "PL1"], ["OBR", "1", "PL1", "", "CT^Head^L"]
    if place == "TQ1-7":
        tq1 = f"TQ1|1||||||{value}"
    else:
        name, field = place.split("-")
        (orc if name == "ORC" else obr)[int(field)] = f"^^^{value}" if field in ("7", "27") else value
    segments = [msh("ORM^O01"), pid(), "|".join(orc), *([tq1] if tq1 else []), "|".join(obr)]
    return message(*segments)


PLACES = ["TQ1-7", "OBR-36", "OBR-27", "ORC-7", "OBR-6"]


def scheduled(index: Index) -> list[tuple[str, str]]:
    return [
        (s["ScheduledProcedureStepStartDate"], s.get("ScheduledProcedureStepStartTime", ""))
        for order in index.orders.listed()
        for s in order.attributes["ScheduledProcedureStepSequence"]
    ]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "value",
    [
        *(
            "20261125T0830",
            "20261125 0830",
            "20261325",
            "20261125240000",
            "20260229",
            "2026-11-25",
            "25.11.2026",
        ),
        *(
            "202611",
            "2026",
            "00000000",
            "2026112508306",
            "20261125082",
            "tomorrow",
            "\uff12\uff10\uff12\uff16\uff11\uff11\uff12\uff15",
        ),
    ],
)
def test_a_date_that_is_none_is_answered_with_its_field(
    tell: Told, still: Index, place: str, value: str
) -> None:
    (answer,) = tell(dated(place, value))
    assert answer.startswith(f"AE {place}: '{value}' is not YYYYMMDD"), answer
    assert [] == still.orders.listed()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20261125", ("20261125", "")),
        ("2026112508", ("20261125", "08")),
        ("202611250830", ("20261125", "0830")),
        ("20261125083059.1234+0100", ("20261125", "083059")),
        ("20240229235960", ("20240229", "235960")),
    ],
)
def test_dates_of_hl7(tell: Told, still: Index, place: str, value: str, expected: tuple[str, str]) -> None:
    assert ["AA"] == tell(dated(place, value))
    assert [expected] == scheduled(still)


def is_now(date: str, time: str) -> bool:
    said = datetime.strptime(date + time, "%Y%m%d%H%M%S").astimezone()
    return timedelta(0) <= datetime.now().astimezone() - said < timedelta(hours=1)


def test_no_date_is_now(tell: Told, still: Index) -> None:
    content = message(msh("ORM^O01"), pid(), "ORC|NW|PL1", "OBR|1|PL1")
    assert ["AA"] == tell(content)
    ((date, time),) = scheduled(still)
    assert is_now(date, time)
    assert 1 == len(selected(still, ScheduledProcedureStepStartDate=date))
    # What comes once more without a date leaves it.
    tell(content, content.replace(b"|NW|", b"|XO|"))
    assert [(date, time)] == scheduled(still)


def test_a_change_without_a_date_leaves_that_of_before(tell: Told, still: Index) -> None:
    tell(orm(), orm("XO", start=""), orm(start=""))
    assert [("20260105", "101500")] == scheduled(still)


def test_a_cancel_needs_no_date_that_can_be_read(tell: Told, still: Index) -> None:
    tell(orm())
    assert ["AA"] == tell(orm("CA", start="soon"))
    assert [] == selected(still)


@pytest.mark.parametrize("source", [Source.FHIR, Source.FILE, Source.UPSTREAM])
def test_no_date_is_now_from_every_source(still: Index, source: Source) -> None:
    order = NewOrder(source, "", "x", {"PatientID": "P1"}, {"AccessionNumber": "A1"}, [{"Modality": "CT"}])
    still.orders.add(order)
    ((date, time),) = scheduled(still)
    assert is_now(date, time)
    still.orders.add(order)
    assert [(date, time)] == scheduled(still)


def test_a_date_that_is_none_is_refused_from_files_too() -> None:
    step = Dataset()
    step.add_new("ScheduledProcedureStepStartDate", "LO", "20261325")
    item = Dataset()
    item.PatientID, item.ScheduledProcedureStepSequence = "P1", [step]
    with pytest.raises(BadItem, match=r"ScheduledProcedureStepStartDate .* is '20261325', not a date"):
        order_of(item, Source.FILE, "", "x")
    request = {
        "resourceType": "ServiceRequest",
        "id": "x",
        "status": "active",
        "subject": {"reference": "#p"},
    }
    request["contained"] = [{"resourceType": "Patient", "id": "p", "identifier": [{"value": "P1"}]}]
    assert 1 == len(orders_of(request))
    for when in ("2026-11", "2026-13-25", "tomorrow"):
        with pytest.raises(BadResource, match=f"occurrence.* '{when}': a date like 2026-01-31 is needed"):
            orders_of({**request, "occurrenceDateTime": when})
