"""A08 and A40: orders, studies and resources follow, and so do images with the old PatientID."""

from collections.abc import Callable
from typing import Any

import pytest
from test_order_matching import resource

from index import Index
from index.models import Study
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import keep
from support.hl7 import Sender, adt, orm, pid, verdict


def subject(index: Index, study: int) -> dict[str, Any]:
    """Return the Patient that a study's resource refers to."""
    reference = resource(index, f"{ROOT}.{study}").get("subject", {}).get("reference", "/")
    return resource(index, reference.split("/")[1], "r4", "Patient")


def numbers(patient: dict[str, Any]) -> list[str]:
    return [one["value"] for one in patient.get("identifier", [])]


@pytest.mark.parametrize("authority", ["", "HOSP"])
def test_a_merge_takes_everything_to_the_survivor(index: Index, ris: Sender, authority: str) -> None:
    keep(index, instance(1, PatientID="OLD", PatientName="Doe^J"))
    keep(index, instance(2, PatientID="NEW", PatientName="Doe^Jane"))
    ris.send(orm(patient=pid("OLD", authority=authority), accession="A9", uid="1.2.9"))
    assert eventually(lambda: all(subject(index, n) for n in (1, 2)) and bool(resource(index, "1.2.9")))
    old = resource(index, f"{ROOT}.1")["subject"]["reference"].split("/")[1]
    since = max(entry.seq for entry in index.changes())

    merge = adt("A40", pid("NEW", "Doe^Jane^Merged", authority=authority), f"MRG|OLD^^^{authority}^MR")
    assert "AA" == verdict(ris.send(merge))
    survivor = resource(index, f"{ROOT}.2")["subject"]
    assert eventually(lambda: survivor == resource(index, f"{ROOT}.1")["subject"])
    assert eventually(lambda: {} == resource(index, old, "r4", "Patient"))
    assert ["NEW", "OLD"] == numbers(subject(index, 1))
    assert ["Jane", "Merged"] == subject(index, 1)["name"][0]["given"]
    (order,) = index.orders.listed()
    assert "NEW" == order.attributes["PatientID"]
    assert [("NEW", "Doe^Jane^Merged")] == [
        (one.attributes["PatientID"], one.attributes["PatientName"]) for one in index.orders.candidates()
    ]
    assert {"NEW"} == {study["patient_id"] for study in index.studies()}
    assert eventually(lambda: survivor == resource(index, "1.2.9").get("subject"))
    told = {(entry.change, entry.type, entry.id) for entry in index.changes(since)}
    assert {("updated", "ImagingStudy", f"{ROOT}.1"), ("deleted", "Patient", old)} <= told

    keep(index, instance(3, PatientID="OLD", PatientName="Doe^J"))
    assert eventually(lambda: survivor == resource(index, f"{ROOT}.3").get("subject"))
    assert ["NEW", "OLD"] == numbers(subject(index, 3))
    ris.send(
        orm(
            patient=pid("OLD", authority=authority), placer="PL7", filler="F7", accession="A7", procedure="R7"
        )
    )
    assert {"NEW"} == {order.attributes["PatientID"] for order in index.orders.listed()}


def test_merges_in_a_row_and_back(index: Index, ris: Sender) -> None:
    keep(index, instance(1, PatientID="A"))
    assert "AA" == verdict(ris.send(adt("A40", pid("B"), "MRG|A^^^^MR")))
    assert "AA" == verdict(ris.send(adt("A40", pid("C"), "MRG|B^^^^MR")))
    assert eventually(
        lambda: "C" == index.studies()[0]["patient_id"] and numbers(subject(index, 1))[:1] == ["C"]
    )
    keep(index, instance(2, PatientID="A"))
    assert ["C", "C"] == [study["patient_id"] for study in index.studies()]
    assert "AA" == verdict(ris.send(adt("A40", pid("A"), "MRG|C^^^^MR")))
    keep(index, instance(3, PatientID="C"))
    assert ["A", "A", "A"] == [study["patient_id"] for study in index.studies()]


def test_several_merges_in_one_message_are_all_or_nothing(index: Index, ris: Sender) -> None:
    keep(index, instance(1, PatientID="A"))
    bad = adt("A40", pid("B"), "MRG|A^^^^MR", pid("D"), "MRG|")
    assert verdict(ris.send(bad)).startswith("AE MRG-1")
    assert ["A"] == [study["patient_id"] for study in index.studies()]


def test_an_update_overrules_what_instances_say(index: Index, ris: Sender) -> None:
    keep(index, instance(1, PatientID="P1", PatientName="Wrong^Name", PatientSex="M"))
    ris.send(orm(patient=pid("P1", "Wrong^Name")))
    assert "AA" == verdict(ris.send(adt("A08", pid("P1", "Right^Name", "19800808", "F"))))
    assert eventually(lambda: "Right" == (subject(index, 1).get("name") or [{}])[0].get("family"))
    assert ("1980-08-08", "female") == tuple(subject(index, 1)[k] for k in ("birthDate", "gender"))
    (item,) = index.orders.candidates()
    assert ("Right^Name", "19800808") == (item.attributes["PatientName"], item.attributes["PatientBirthDate"])
    assert 1 == len(index.orders.candidates(name="right"))


def test_another_hospitals_patient_of_the_same_number_is_let_alone(served: Callable[..., Index]) -> None:
    index = served(local_authority="OURS")
    keep(index, instance(1, PatientID="X"))
    sender = Sender(index.orders.hl7_address)
    assert "AA" == verdict(sender.send(adt("A40", pid("Y", authority="THEIRS"), "MRG|X^^^THEIRS^MR")))
    assert ["X"] == [study["patient_id"] for study in index.studies()]
    assert "AA" == verdict(sender.send(adt("A40", pid("Y", authority="OURS"), "MRG|X^^^OURS^MR")))
    assert ["Y"] == [study["patient_id"] for study in index.studies()]
    sender.close()


def test_an_update_reaches_the_studies_that_were_matched_to_the_patients_orders(
    index: Index, ris: Sender
) -> None:
    """By hand an order may be matched to the study of another patient: its own stands beside it."""
    keep(index, instance(1, PatientID="OTHER"))
    ris.send(orm(patient=pid("P1"), accession="A9", uid="1.2.9"))
    assert eventually(lambda: bool(resource(index, "1.2.9")))
    (order,) = index.orders.listed()
    index.orders.set_match(f"{ROOT}.1", order.id)

    def names() -> list[str]:
        request = resource(index, order.key, "r4", "ServiceRequest")
        reference = request.get("subject", {}).get("reference", "/")
        name = resource(index, reference.split("/")[1], "r4", "Patient").get("name", [{}])
        return name[0].get("given", [])

    assert eventually(lambda: bool(names()) and {} == resource(index, "1.2.9"))
    waiting = Study.select(Study.uid).where(Study.revision != Study.published)
    assert eventually(lambda: [] == index._database.rows(waiting))
    assert "AA" == verdict(ris.send(adt("A08", pid("P1", "Doe^Renamed"))))
    assert eventually(lambda: ["Renamed"] == names())
