"""Order control, order status and ADT events: every code of HL7 Tables 0119, 0038 and 0003 has its answer."""

from collections.abc import Callable

import pytest

from index import Index, OrderStatus
from index.orders.hl7.adt import EVENTS, Event
from index.orders.hl7.requests import CONTROLS, STATES, Action
from support.hl7 import adt, message, msh, order_group, orm, pid
from support.worklist import selected, set_step_status

Told = Callable[..., list[str]]

# HL7 v2.6 Chapter 4, Table 0119; CP came with 2.8.
TABLE_0119 = """AF CA CH CN CP CR DC DE DF DR FU HD HR LI MC NA NW OC OD OE OF OH OK OP OR PA PR PY RE RF RL
RO RP RQ RR RU SC SN SR SS UA UC UD UF UH UM UN UR UX XO XR XX"""
TABLE_0038 = "A CA CM DC ER HD IP RP SC"
NOTHING = sorted(control for control, action in CONTROLS.items() if action is Action.NOTHING)


def state(index: Index) -> list[tuple[str, str]]:
    return [
        (str(order.status), step["ScheduledProcedureStepStatus"])
        for order in index.orders.listed()
        for step in order.attributes["ScheduledProcedureStepSequence"]
    ]


def change(control: str, status: str = "") -> bytes:
    return message(msh("ORM^O01"), pid(), *order_group(control, status=status))


def test_the_tables_are_whole() -> None:
    assert set(TABLE_0119.split()) == set(CONTROLS)
    assert set(TABLE_0038.split()) == set(STATES)
    # Table 0003 without A19, which is a query; A56 to A59 are not in use.
    assert {f"A{number:02}" for number in range(1, 63)} - {"A19", "A56", "A57", "A58", "A59"} == set(EVENTS)


@pytest.mark.parametrize("control", NOTHING)
def test_what_changes_nothing_is_answered_aa(tell: Told, still: Index, control: str) -> None:
    assert ["AA"] == tell(change(control))
    assert [] == still.orders.listed()
    tell(orm())
    before = still.orders.listed()
    assert ["AA", "AA", "AA"] == tell(change(control), change(control, "CM"), change(control.lower()))
    assert before == still.orders.listed()


@pytest.mark.parametrize(
    ("control", "said", "expected"),
    [
        *((control, "", "SCHEDULED") for control in ("NW", "XO", "XX", "XR", "SN", "RO", "PA", "CH")),
        *((control, "CM", "COMPLETED") for control in ("XO", "XX", "XR", "SC", "SR", "NW")),
        *((control, "CA", "CANCELLED") for control in ("XO", "XX", "XR", "SC", "SR", "CA", "OC", "CR", "NW")),
        *((control, "DC", "DISCONTINUED") for control in ("XO", "XX", "SC", "DC", "OD", "DR")),
        *((control, "", "CANCELLED") for control in ("CA", "OC", "CR")),
        *((control, "", "DISCONTINUED") for control in ("DC", "OD", "DR")),
        ("DC", "CA", "DISCONTINUED"),  # IHE RAD TF-2 Section 4.13
        ("SC", "RP", "CANCELLED"),
        ("SC", "IP", "STARTED"),
        ("SC", "A", "STARTED"),
        ("XO", "IP", "SCHEDULED"),
        ("NW", "IP", "SCHEDULED"),
        ("XO", "SC", "SCHEDULED"),
        *((control, said, "SCHEDULED") for control in ("SC", "SR") for said in ("", "SC", "HD", "ER")),
    ],
)
def test_what_a_control_and_a_status_make_of_an_order(
    tell: Told, still: Index, control: str, said: str, expected: str
) -> None:
    tell(orm())
    assert ["AA"] == tell(change(control, said))
    assert [(expected, expected)] == state(still)
    assert (expected == "SCHEDULED") == bool(selected(still))


@pytest.mark.parametrize("control", ["CA", "DC", "XO"])
@pytest.mark.parametrize("again", ["NW", "XO"])
def test_what_was_cancelled_comes_back(tell: Told, still: Index, control: str, again: str) -> None:
    tell(orm(), change(control, "DC" if control == "XO" else ""))
    assert [] == selected(still)
    assert ["AA"] == tell(orm(again))
    assert [("SCHEDULED", "SCHEDULED")] == state(still)


def test_what_its_source_completed_comes_back_where_that_is_said(tell: Told, still: Index) -> None:
    tell(orm(), change("XO", "CM"), change("XO"), orm())
    assert [("COMPLETED", "COMPLETED")] == state(still)
    assert ["AA"] == tell(change("SC", "SC"))
    assert [("SCHEDULED", "SCHEDULED")] == state(still)


@pytest.mark.parametrize("made", [OrderStatus.STARTED, OrderStatus.COMPLETED, OrderStatus.DISCONTINUED])
def test_what_a_modality_did_is_not_undone(tell: Told, still: Index, made: OrderStatus) -> None:
    tell(orm())
    assert 1 == len(selected(still))
    set_step_status(still, made)
    tell(orm(), change("XO"), change("SC", "SC"))
    assert [(str(made), str(made))] == state(still)


@pytest.mark.parametrize("control", ["CA", "DC", "OC", "CR", "SC", "XO"])
def test_what_cannot_be_done_is_ae(tell: Told, still: Index, control: str) -> None:
    (answer,) = tell(change(control, "CM"))
    assert answer.startswith("AE ORC-2: no order has this")
    (answer,) = tell(message(msh("ORM^O01"), pid(), f"ORC|{'XO' if control == 'XO' else 'SC'}|PL1|||IP"))
    assert answer.startswith("AE ORC-2: no order has this")
    assert [] == still.orders.listed()


@pytest.mark.parametrize("control", ["RP", "RU", "RQ"])
def test_an_order_is_replaced_by_another(tell: Told, still: Index, control: str) -> None:
    """HL7 Section 4.5.1.1: the replaced order is as if cancelled; RO with the new one follows."""
    tell(orm())
    (answer,) = tell(change(control))
    assert answer.startswith("AE ORC: an order is replaced, and none with RO follows")
    new = order_group("RO", placer="PL9", filler="FI9", accession="A9", procedure="RP9", step="S9")
    assert ["AA"] == tell(message(msh("ORM^O01"), pid(), *order_group(control), *new))
    assert [("A1", "CANCELLED"), ("A9", "SCHEDULED")] == [
        (order.attributes["AccessionNumber"], order.status) for order in still.orders.listed()
    ]


def test_results_beside_an_order_are_passed_over(tell: Told, still: Index) -> None:
    result = ["ORC|RE|PLX", "OBR|2|PLX||8302-2^Height^LN", "OBX|1|NM|8302-2||180|cm"]
    assert ["AA"] == tell(message(msh("ORM^O01"), pid(), *order_group(), *result))
    assert ["A1"] == [order.attributes["AccessionNumber"] for order in still.orders.listed()]


@pytest.mark.parametrize("event", sorted(event for event, what in EVENTS.items() if what is Event.NOTHING))
def test_adt_events_of_no_concern_are_answered_aa(tell: Told, still: Index, event: str) -> None:
    tell(orm())
    before = still.orders.listed()
    assert ["AA", "AA"] == tell(adt(event, pid("P1", "Other^Name")), adt(event))
    assert before == still.orders.listed()


@pytest.mark.parametrize("event", sorted(event for event, what in EVENTS.items() if what is Event.UNABLE))
def test_adt_events_that_cannot_be_followed_are_answered_ae(tell: Told, event: str) -> None:
    assert [f"AE MSH-9: ADT event {event} cannot be followed"] == tell(adt(event, pid(), "MRG|X"))


@pytest.mark.parametrize("event", ["A18", "A34", "A36", "A40", "A47"])
def test_merges_by_all_their_names(tell: Told, still: Index, event: str) -> None:
    tell(orm(patient=pid("OLD", authority="HOSP")))
    assert ["AA"] == tell(adt(event, pid("NEW", authority="HOSP"), "MRG|OLD^^^HOSP^MR"))
    assert ["NEW"] == [order.attributes["PatientID"] for order in still.orders.listed()]
