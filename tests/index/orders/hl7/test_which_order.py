"""Which order a message means: orders that share a number stay apart, one order of two senders is one.

HL7 v2.5.1 Sections 4.5.1.2 and 4.5.1.3: a number is unique with its namespace alone. IHE RAD TF-2
Section 4.4: OBRs of one requested procedure are its scheduled steps.
"""

from collections.abc import Callable
from typing import Any

import pytest

from index import Index, NewOrder, OrderStatus, Source
from support.hl7 import message, msh, order_group, orm, pid
from support.worklist import selected, set_step_status

Told = Callable[..., list[str]]
NO_NUMBERS: dict[str, str] = {"placer": "", "filler": "", "accession": "", "procedure": "", "step": ""}


def told(control: str = "NW", patient: str | None = None, **numbers: str) -> bytes:
    """Return an order with these numbers and no others."""
    return orm(control, patient=patient, **{**NO_NUMBERS, **numbers})


def both(*groups: dict[str, str], control: str = "NW") -> bytes:
    segments = [segment for one in groups for segment in order_group(control, **{**NO_NUMBERS, **one})]
    return message(msh("ORM^O01"), pid(), *segments)


def by(application: str, content: bytes) -> bytes:
    return content.replace(b"|RIS|", f"|{application}|".encode(), 1)


def without_namespace(content: bytes) -> bytes:
    return content.replace(b"^HIS", b"").replace(b"^RIS", b"")


def items(index: Index) -> list[tuple[str, str, str, str]]:
    """Return accession, filler, step and state of everything on the worklist or off it."""
    return sorted(
        (
            order.attributes.get("AccessionNumber", ""),
            order.attributes.get("FillerOrderNumberImagingServiceRequest", ""),
            "" if "-" in step["ScheduledProcedureStepID"] else step["ScheduledProcedureStepID"],
            step["ScheduledProcedureStepStatus"],
        )
        for order in index.orders.listed()
        for step in order.attributes["ScheduledProcedureStepSequence"]
    )


SHARED = [
    ({"accession": "A1"}, {"accession": "A2"}),
    ({"filler": "F1"}, {"filler": "F2"}),
    ({"step": "S1"}, {"step": "S2"}),
    ({"accession": "A1", "filler": "F1"}, {"accession": "A1", "filler": "F2"}),
    ({"procedure": "R1"}, {"procedure": "R2"}),
    ({"procedure": "R1", "accession": "A1"}, {"procedure": "R1", "accession": "A2"}),
    (
        {"procedure": "R1", "accession": "A1", "step": "S1"},
        {"procedure": "R1", "accession": "A1", "step": "S2"},
    ),
]


@pytest.mark.parametrize(("first", "second"), SHARED)
@pytest.mark.parametrize("in_one", [True, False])
def test_what_shares_a_placer_number_and_differs_is_two(
    tell: Told, still: Index, first: dict[str, str], second: dict[str, str], *, in_one: bool
) -> None:
    groups = [{"placer": "P", **one} for one in (first, second)]
    answers = tell(both(*groups)) if in_one else tell(*(told(**one) for one in groups))
    assert {"AA"} == set(answers)
    expected = sorted(
        (one.get("accession", ""), one.get("filler", ""), one.get("step", "")) for one in groups
    )
    assert expected == [one[:3] for one in items(still)]
    tell(both(*groups) if in_one else told(**groups[0]))  # told once more, nothing is added
    assert expected == [one[:3] for one in items(still)]


def test_a_further_message_of_one_procedure_adds_its_step_to_the_same_study(tell: Told, still: Index) -> None:
    numbers = {"placer": "P", "accession": "A1", "procedure": "R1"}
    tell(told(**numbers, step="S1"), told(**numbers, step="S2"))
    assert 1 == len({order.study_uid for order in still.orders.listed()})
    assert ["S1", "S2"] == [one[2] for one in items(still)]
    tell(told("XO", **numbers, step="S1", start="20260107080000"))
    assert ["S1", "S2"] == [one[2] for one in items(still)]
    assert {"20260107", "20260105"} == {
        step["ScheduledProcedureStepStartDate"]
        for order in still.orders.listed()
        for step in order.attributes["ScheduledProcedureStepSequence"]
    }


def test_another_patient_with_the_same_placer_number_has_an_order_of_its_own(
    tell: Told, still: Index
) -> None:
    tell(told(placer="1"), told(patient=pid("P2", "Roe^Rita"), placer="1"))
    tell(told("XO", patient=pid("P3", "Poe^Ed"), placer="1"))
    assert ["P1", "P2", "P3"] == sorted(o.attributes["PatientID"] for o in still.orders.listed())
    assert ["AA"] == tell(told("CA", patient=pid("P2"), placer="1"))
    ended = {o.attributes["PatientID"]: str(o.status) for o in still.orders.listed()}
    assert {"P1": "SCHEDULED", "P2": "CANCELLED", "P3": "SCHEDULED"} == ended


@pytest.mark.parametrize("length", [17, 18, 40])
def test_step_and_procedure_ids_alike_in_16_characters_are_two(tell: Told, still: Index, length: int) -> None:
    one, other = ("SPS-2026-0000123".ljust(length - 1, "0") + last for last in "12")
    tell(
        both({"placer": "P", "procedure": "R", "step": one}, {"placer": "P", "procedure": "R", "step": other})
    )
    tell(told(placer="Q", procedure=one), told(placer="Q", procedure=other))
    orders = still.orders.listed()
    steps = [s["ScheduledProcedureStepID"] for s in orders[0].attributes["ScheduledProcedureStepSequence"]]
    procedures = [order.attributes["RequestedProcedureID"] for order in orders[1:]]
    for ids in (steps, procedures):
        assert 2 == len(set(ids))
        assert all(len(value) <= 16 for value in ids)  # SH, PS3.5 Table 6.2-1
    # The same id again is the same step.
    tell(both({"placer": "P", "procedure": "R", "step": one}, control="CA"))
    assert ["CANCELLED", "SCHEDULED"] == sorted(
        s["ScheduledProcedureStepStatus"]
        for s in still.orders.listed()[0].attributes["ScheduledProcedureStepSequence"]
    )


def test_several_obr_of_one_step_keep_all_protocol_codes(tell: Told, still: Index) -> None:
    groups = [order_group(obr4=f"CT^CT^99RIS^{code}^Protocol {code}^99RIS") for code in ("C1", "C2", "C1")]
    tell(message(msh("ORM^O01"), pid(), *(segment for group in groups for segment in group)))
    (order,) = still.orders.listed()
    (step,) = order.attributes["ScheduledProcedureStepSequence"]
    assert ["C1", "C2"] == [code["CodeValue"] for code in step["ScheduledProtocolCodeSequence"]]


def test_several_protocols_of_ipc_are_kept(tell: Told, still: Index) -> None:
    group = order_group(step="")
    tell(message(msh("OMI^O23"), pid(), *group, "IPC|A1|RP1|1.2.3|S1|CT|C1^One^L~C2^Two^L|||CT1"))
    (step,) = still.orders.listed()[0].attributes["ScheduledProcedureStepSequence"]
    assert ["C1", "C2"] == [code["CodeValue"] for code in step["ScheduledProtocolCodeSequence"]]


def test_a_cancel_ends_the_step_that_it_names_and_no_other(tell: Told, still: Index) -> None:
    steps = [{"placer": "P", "procedure": "R", "step": step} for step in ("S1", "S2")]
    tell(both(*steps))
    assert ["AA"] == tell(both(steps[0], control="CA"))
    assert [("S1", "CANCELLED"), ("S2", "SCHEDULED")] == [one[2:] for one in items(still)]
    assert "SCHEDULED" == still.orders.listed()[0].status
    (answer,) = tell(both({**steps[0], "step": "S9"}, control="CA"))
    assert answer.startswith("AE ORC-2: no order has this")
    assert ["AA"] == tell(told("CA", placer="P"))
    assert {"CANCELLED"} == {one[3] for one in items(still)}


def test_a_number_of_several_orders_ends_all_and_changes_none(tell: Told, still: Index) -> None:
    tell(both({"placer": "P", "accession": "A1"}, {"placer": "P", "accession": "A2"}))
    (answer,) = tell(told("XO", placer="P"))
    assert answer.startswith("AE ORC-2: 2 orders have this number")
    assert ["AA"] == tell(told("CA", placer="P", accession="A1"))
    assert ["CANCELLED", "SCHEDULED"] == [one[3] for one in items(still)]
    assert ["AA"] == tell(told("CA", placer="P"))
    assert ["CANCELLED", "CANCELLED"] == [one[3] for one in items(still)]


def test_numbers_that_come_later_belong_to_the_order(tell: Told, still: Index) -> None:
    tell(told(placer="P"), told("XO", placer="P", filler="F"), told("XO", filler="F", accession="A"))
    assert [("A", "F", "", "SCHEDULED")] == items(still)
    # An accession number is corrected where both other numbers say that it is the same order.
    tell(told("XO", placer="P", filler="F", accession="A-new"))
    assert [("A-new", "F", "", "SCHEDULED")] == items(still)


@pytest.mark.parametrize(
    ("first", "change"),
    [
        ({"placer": "K"}, {"placer": "K"}),
        ({"placer": "K", "filler": "F"}, {"placer": "K"}),
        ({"placer": "R1", "accession": "A"}, {"placer": "H1", "accession": "A"}),
        ({"placer": "R1", "uid": "1.2.3"}, {"placer": "H1", "uid": "1.2.3"}),
    ],
)
def test_another_sender_cancels_and_changes_an_order(
    tell: Told, still: Index, first: dict[str, str], change: dict[str, str]
) -> None:
    tell(told(**first))
    changed = told("XO", **change, start="20260203080000")
    assert ["AA", "AA"] == tell(by("HIS", changed), by("OTHER", told("CA", **change)))
    (order,) = still.orders.listed()
    (step,) = order.attributes["ScheduledProcedureStepSequence"]
    assert ("CANCELLED", "20260203") == (order.status, step["ScheduledProcedureStepStartDate"])


@pytest.mark.parametrize(
    ("first", "change", "patient"),
    [
        # Another namespace, and a number without one that another patient's order has.
        (told(placer="K"), by("HIS", told("CA", placer="K").replace(b"K^HIS", b"K^LAB")), None),
        (
            without_namespace(told(placer="K")),
            by("HIS", without_namespace(told("CA", placer="K"))),
            pid("P2"),
        ),
        (told(accession="A"), by("HIS", told("CA", accession="A")), pid("P2")),
        (told(placer="K", accession="A"), by("HIS", told("CA", placer="K", accession="B")), None),
        (told(placer="K", filler="F"), by("HIS", told("CA", placer="K", filler="G")), None),
        (told(uid="1.2.3", placer="K"), by("HIS", told("CA", uid="1.2.4", placer="L")), None),
    ],
)
def test_another_senders_order_of_a_like_number_is_let_alone(
    tell: Told, still: Index, first: bytes, change: bytes, patient: str | None
) -> None:
    tell(first)
    if patient:
        change = change.replace(pid().encode(), patient.encode())
    (answer,) = tell(change)
    assert answer.startswith("AE ORC-2")
    assert ["SCHEDULED"] == [one[3] for one in items(still)]


def test_another_sender_without_a_namespace_is_confirmed_by_the_patient(tell: Told, still: Index) -> None:
    tell(without_namespace(told(placer="K")))
    assert ["AA"] == tell(by("HIS", without_namespace(told("CA", placer="K"))))
    assert ["CANCELLED"] == [one[3] for one in items(still)]


def test_another_senders_change_leaves_the_numbers_that_its_own_sender_uses(tell: Told, still: Index) -> None:
    """HL7 v2.5.1 Section 4.5.1.2: the placer number is the placer's; here each system has one of its own."""
    tell(told(placer="R1", filler="F1", accession="A", procedure="P1"))
    change = told("XO", placer="H1", accession="A", procedure="P2", start="20260203080000")
    assert ["AA"] == tell(by("HIS", change.replace(b"H1^HIS", b"H1^HISNS")))
    (order,) = still.orders.listed()
    said = [order.attributes[f"{who}OrderNumberImagingServiceRequest"] for who in ("Placer", "Filler")]
    assert [*said, order.attributes["RequestedProcedureID"]] == ["R1", "F1", "P1"]
    assert "HIS" == order.attributes["OrderPlacerIdentifierSequence"][0]["LocalNamespaceEntityID"]
    assert ["AA"] == tell(told("CA", placer="R1"))
    assert ["CANCELLED"] == [one[3] for one in items(still)]


def test_another_sender_adds_a_number_that_was_missing(tell: Told, still: Index) -> None:
    tell(told(placer="K"))
    assert ["AA"] == tell(by("HIS", told("XO", placer="K", filler="F9")))
    assert ["F9"] == [one[1] for one in items(still)]


def test_another_senders_change_leaves_what_the_patient_is_called(tell: Told, still: Index) -> None:
    tell(told(placer="K", patient=pid("R7", "Doe^Jane", authority="RISIDS")))
    change = told("XO", placer="K", patient=pid("H9", "Doe^J", authority="HISIDS"), start="20260203080000")
    assert ["AA"] == tell(by("HIS", change))
    (order,) = still.orders.listed()
    assert ("R7", "Doe^Jane") == (order.attributes["PatientID"], order.attributes["PatientName"])
    assert (
        "20260203" == order.attributes["ScheduledProcedureStepSequence"][0]["ScheduledProcedureStepStartDate"]
    )


def test_what_a_modality_completed_cannot_be_cancelled(tell: Told, still: Index) -> None:
    tell(told(placer="K", step="S1"))
    assert 1 == len(selected(still))
    set_step_status(still, OrderStatus.COMPLETED)
    assert ["AE ORC-1: the modality has completed this order"] == tell(told("CA", placer="K"))
    assert ["COMPLETED"] == [one[3] for one in items(still)]


def test_steps_of_one_id_are_one_from_every_source(still: Index) -> None:
    def code(value: str) -> dict[str, Any]:
        return {"ScheduledProtocolCodeSequence": [{"CodeValue": value, "CodingSchemeDesignator": "L"}]}

    steps = [
        {"ScheduledProcedureStepID": "S1", **code("C1")},
        {"ScheduledProcedureStepID": "S1", **code("C2")},
    ]
    row = still.orders.add(NewOrder(Source.FHIR, "", "x", {"PatientID": "P1"}, {}, steps))
    (step,) = still.orders.listed(row)[0].attributes["ScheduledProcedureStepSequence"]
    assert ["C1", "C2"] == [one["CodeValue"] for one in step["ScheduledProtocolCodeSequence"]]
