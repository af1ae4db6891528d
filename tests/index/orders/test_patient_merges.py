"""A08 and A40: orders, studies and resources follow, and so do images with the old PatientID."""

from collections.abc import Callable
from typing import Any

import pytest
from test_order_matching import resource

from index import Index
from index.database.tables import Study
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import keep
from support.hl7 import Sender, adt, orm, pid, verdict
from support.worklist import selected


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
        (one.attributes["PatientID"], one.attributes["PatientName"]) for one in selected(index)
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
    (item,) = selected(index)
    assert ("Right^Name", "19800808") == (item.attributes["PatientName"], item.attributes["PatientBirthDate"])
    assert 1 == len(selected(index, PatientName="right"))


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


def told(index: Index) -> list[str]:
    return sorted(order.attributes["PatientID"] for order in index.orders.listed())


@pytest.mark.parametrize(
    ("survivor", "old"),
    [("NEW^^^HOSP", "OLD"), ("NEW", "OLD^^^HOSP"), ("NEW", "OLD"), ("NEW^^^HOSP", "OLD^^^HOSP")],
)
@pytest.mark.parametrize("event", ["A40", "A47"])
@pytest.mark.parametrize("local", [None, "HOSP"])
def test_a_merge_without_an_authority_is_done(
    served: Callable[..., Index], survivor: str, old: str, event: str, local: str | None
) -> None:
    """HL7 v2.5.1 Section 2.A.14.4: CX.4 is conditional; within one hospital it is left out."""
    index = served(local_authority=local)
    keep(index, instance(1, PatientID="OLD", IssuerOfPatientID="HOSP"))
    keep(index, instance(2, PatientID="OLD"))
    sender = Sender(index.orders.hl7_address)
    assert "AA" == verdict(sender.send(orm(patient=pid("OLD", authority="HOSP"))))
    assert "AA" == verdict(sender.send(adt(event, f"PID|||{survivor}||Doe^Jane", f"MRG|{old}")))
    sender.close()
    assert ["NEW"] == told(index)
    assert ["NEW", "NEW"] == [study["patient_id"] for study in index.studies()]
    assert "NEW" == selected(index)[0].attributes["PatientID"]


def test_a_number_of_two_authorities_is_not_merged_without_one(index: Index, ris: Sender) -> None:
    for authority in ("HOSP", "OTHER"):
        ris.send(
            orm(patient=pid("OLD", authority=authority), accession=authority, placer=authority, filler="")
        )
    answer = verdict(ris.send(adt("A40", pid("NEW"), "MRG|OLD")))
    assert answer.startswith("AE MRG-1: the number is known of HOSP, OTHER"), answer
    answer = verdict(ris.send(adt("A40", pid("NEW", authority="THIRD"), "MRG|OLD")))
    assert answer.startswith("AE MRG-1")
    assert verdict(ris.send(adt("A08", pid("OLD", "Right^Name")))).startswith("AE PID-3")
    assert ["OLD", "OLD"] == told(index)
    # The other patient of the merge tells which.
    assert "AA" == verdict(ris.send(adt("A40", pid("NEW", authority="OTHER"), "MRG|OLD")))
    assert [("HOSP", "OLD"), ("OTHER", "NEW")] == sorted(
        (order.attributes["IssuerOfPatientID"], order.attributes["PatientID"])
        for order in index.orders.listed()
    )


@pytest.mark.parametrize("authority", ["HOSP", "HOSP&1.2.3&ISO", "&1.2.3&ISO"])
def test_an_update_without_an_authority_is_done(index: Index, ris: Sender, authority: str) -> None:
    keep(index, instance(1, PatientID="P1", PatientName="Wrong^Name"))
    ris.send(orm(patient=pid("P1", "Wrong^Name", authority=authority)))
    assert "AA" == verdict(ris.send(adt("A08", pid("P1", "Right^Name"))))
    (item,) = selected(index)
    assert "Right^Name" == item.attributes["PatientName"]
    assert eventually(lambda: "Right" == (subject(index, 1).get("name") or [{}])[0].get("family"))


def test_both_names_of_an_authority_are_one(index: Index, ris: Sender) -> None:
    keep(index, instance(1, PatientID="OLD", IssuerOfPatientID="HOSP"))
    new = pid("NEW", authority="HOSP&1.2.3&ISO")
    assert "AA" == verdict(ris.send(adt("A40", new, "MRG|OLD^^^HOSP&1.2.3&ISO")))
    assert ["NEW"] == [study["patient_id"] for study in index.studies()]


SEVERAL = "PID|||E900^^^EMPI&1.2.3&ISO^PI~M3^^^HOSP^PI||Doe^Jane"


@pytest.mark.parametrize(
    ("local", "expected"), [("HOSP", "M3"), ("EMPI", "E900"), ("1.2.3", "E900"), (None, "E900")]
)
def test_the_local_authority_is_asked_for_an_order(
    served: Callable[..., Index], local: str | None, expected: str
) -> None:
    index = served(local_authority=local)
    sender = Sender(index.orders.hl7_address)
    assert "AA" == verdict(sender.send(orm(patient=SEVERAL)))
    sender.close()
    assert [expected] == told(index)


def test_the_record_number_is_the_patients_where_no_authority_is_configured(
    index: Index, ris: Sender
) -> None:
    ris.send(orm(patient="PID|||900^^^INS^SS~E900^^^EMPI^PI~M3^^^HOSP^MR||Doe^Jane"))
    assert ["M3"] == told(index)


def test_an_update_and_a_merge_reach_what_any_of_several_identifiers_names(index: Index, ris: Sender) -> None:
    ris.send(orm(patient=pid("M3", "Wrong^Name", authority="HOSP")))
    assert "AA" == verdict(ris.send(adt("A08", SEVERAL)))
    assert "Doe^Jane" == selected(index)[0].attributes["PatientName"]
    mrg = "MRG|E900^^^EMPI&1.2.3&ISO~M3^^^HOSP"
    survivor = "PID|||E901^^^EMPI&1.2.3&ISO^PI~M4^^^HOSP^PI||Doe^Jane"
    assert "AA" == verdict(ris.send(adt("A40", survivor, mrg)))
    assert ["M4"] == told(index)


def test_an_insurance_number_is_no_patients_record_number(index: Index, ris: Sender) -> None:
    ris.send(orm(patient=pid("12345", "Other^Patient")))
    update = "PID|||M3^^^HOSP^MR~12345^^^^SS~12345||Doe^Jane"
    assert "AA" == verdict(ris.send(adt("A08", update)))
    assert "Other^Patient" == selected(index)[0].attributes["PatientName"]


def test_what_an_update_deletes_is_deleted(index: Index, ris: Sender) -> None:
    """HL7 v2.5.1 Section 2.5.3: two quotation marks delete a value."""
    keep(index, instance(1, PatientID="P1", PatientSex="M"))
    ris.send(orm(patient=pid("P1")))
    assert "AA" == verdict(ris.send(adt("A08", 'PID|||P1||Doe^Jane||""|""')))
    (item,) = selected(index)
    assert set() == {"PatientBirthDate", "PatientSex"} & item.attributes.keys()
    assert eventually(lambda: bool(subject(index, 1)) and "gender" not in subject(index, 1))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_merge_is_undone_by_an_unlink(index: Index, ris: Sender, *, swapped: bool) -> None:
    """ADT^A37 (HL7 v2.5.1 Section 3.3.37)."""
    keep(index, instance(1, PatientID="OLD", PatientName="Old^Name"))
    keep(index, instance(2, PatientID="NEW", PatientName="New^Name"))
    ris.send(orm(patient=pid("OLD", "Old^Name")))
    ris.send(orm(patient=pid("NEW", "New^Name"), accession="A2", placer="PL2", filler="F2", procedure="R2"))
    ris.send(adt("A40", pid("NEW", "New^Name"), "MRG|OLD^^^^MR"))
    assert ["NEW", "NEW"] == told(index)
    pair = [pid("NEW", "New^Name"), pid("OLD", "Old^Name")]
    assert "AA" == verdict(ris.send(adt("A37", *(pair[::-1] if swapped else pair))))
    assert {"1": "OLD", "2": "NEW"} == {s["uid"].rsplit(".", 1)[1]: s["patient_id"] for s in index.studies()}
    assert [("NEW", "New^Name"), ("OLD", "Old^Name")] == sorted(
        (order.attributes["PatientID"], order.attributes["PatientName"]) for order in index.orders.listed()
    )
    keep(index, instance(3, PatientID="OLD", PatientName="Old^Name"))
    assert eventually(lambda: ["OLD"] == numbers(subject(index, 3)) and ["NEW"] == numbers(subject(index, 2)))
    assert "AA" == verdict(ris.send(adt("A37", *pair)))  # they are two already


def test_an_unlink_takes_along_who_was_merged_before(index: Index, ris: Sender) -> None:
    for number, patient in enumerate("ABC", start=1):
        keep(index, instance(number, PatientID=patient))
    ris.send(adt("A40", pid("B"), "MRG|A^^^^MR"))
    ris.send(adt("A40", pid("C"), "MRG|B^^^^MR"))
    assert ["C", "C", "C"] == [study["patient_id"] for study in index.studies()]
    answer = verdict(ris.send(adt("A37", pid("A"), pid("B"))))
    assert answer.startswith("AE PID-3: both patients were merged into another one")
    assert "AA" == verdict(ris.send(adt("A37", pid("B"), pid("C"))))
    assert ["B", "B", "C"] == [study["patient_id"] for study in index.studies()]
    assert "AA" == verdict(ris.send(adt("A37", pid("B"), pid("A"))))
    assert ["A", "B", "C"] == [study["patient_id"] for study in index.studies()]


def test_an_unlink_names_two_patients(ris: Sender) -> None:
    for segments in ([pid("A")], [pid("A"), pid("B"), pid("C")], []):
        assert verdict(ris.send(adt("A37", *segments))).startswith("AE PID: two patients are unlinked")


@pytest.mark.sqlite
def test_patients_of_a_number_are_found_by_an_index(index: Index) -> None:
    from index.orders.patients.identities import known_identities

    keep(index, instance(1, PatientID="P1", IssuerOfPatientID="HOSP"))
    found = known_identities(index._database, {"PatientID": "P1"})
    assert ["HOSP"] == [one["IssuerOfPatientID"] for one in found]
    plan = index._database.peewee.execute_sql(
        "EXPLAIN QUERY PLAN SELECT id FROM study_variant"
        " WHERE json_extract(patient_attributes, '$.PatientID') = ?",
        ("P1",),
    ).fetchall()
    assert "study_variant_patient_number" in str(plan)
