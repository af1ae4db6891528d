"""Which order a study belongs to: the rules alone, and with images before and after their order."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from index import Index, NewOrder, NotFound, Source
from index.orders.matching.rules import (
    MatchResult,
    OrderIdentity,
    PatientIdentity,
    RequestAttributes,
    StudyIdentity,
    match_orders,
)
from index.orders.records import OrderStatus
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import keep
from support.hl7 import Sender, adt, orm, pid, verdict
from support.worklist import selected

JANE = PatientIdentity(1, "P1", "")
NOT_HERS = MatchResult(doubts=("Study Instance UID found order 1, but not of this patient",))


def order(number: int, **changes: Any) -> OrderIdentity:
    values: dict[str, Any] = {
        "id": number,
        "key": f"k{number}",
        "patient": JANE,
        "status": OrderStatus.SCHEDULED,
        "study_uid": f"1.{number}",
        "procedure_id": f"R{number}",
        "accession": (f"A{number}", ""),
        "step_ids": frozenset((f"S{number}",)),
    }
    return OrderIdentity(**{**values, **changes})


FIRST, SECOND = order(1), order(2)


@pytest.mark.parametrize(
    ("identity", "candidates", "expected"),
    [
        (StudyIdentity("1.1", JANE), [FIRST, SECOND], MatchResult(frozenset((1,)), "study-uid")),
        (
            StudyIdentity("9", JANE, (RequestAttributes("R2", "S2"),)),
            [FIRST, SECOND],
            MatchResult(frozenset((2,)), "step-id"),
        ),
        (StudyIdentity("9", JANE, (RequestAttributes("R2", "S1"),)), [FIRST, SECOND], MatchResult()),
        (
            StudyIdentity("9", JANE, (RequestAttributes("", "S1"), RequestAttributes("", "S2"))),
            [FIRST, SECOND],
            MatchResult(frozenset((1, 2)), "step-id"),
        ),
        (
            StudyIdentity("9", JANE, (), (("A2", ""),)),
            [FIRST, SECOND],
            MatchResult(frozenset((2,)), "accession"),
        ),
        (StudyIdentity("9", JANE, (), (("A2", "X"),)), [order(2, accession=("A2", "Y"))], MatchResult()),
        (StudyIdentity("9", JANE, (), (("A2", "X"),)), [SECOND], MatchResult(frozenset((2,)), "accession")),
        # The first rule that finds one decides.
        (
            StudyIdentity("1.1", JANE, (), (("A2", ""),)),
            [FIRST, SECOND],
            MatchResult(frozenset((1,)), "study-uid"),
        ),
        # Another patient's, and several.
        (StudyIdentity("1.1", PatientIdentity(2, "P2", "")), [FIRST], NOT_HERS),
        (StudyIdentity("1.1", PatientIdentity(2, "", "")), [FIRST], NOT_HERS),
        (
            StudyIdentity("9", JANE, (), (("A", ""),)),
            [order(1, accession=("A", "")), order(2, accession=("A", ""))],
            MatchResult(doubts=("accession number found several: order 1, order 2",)),
        ),
        # What one rule leaves open the next one may tell.
        (
            StudyIdentity("7", JANE, (), (("A2", ""),)),
            [order(1, study_uid="7"), order(2, study_uid="7")],
            MatchResult(
                frozenset((2,)), "accession", ("Study Instance UID found several: order 1, order 2",)
            ),
        ),
        # One order that two sources tell of; a cancelled one beside its successor.
        (
            StudyIdentity("9", JANE, (), (("A1", ""),)),
            [order(5, procedure_id="R1", accession=("A1", "")), FIRST],
            MatchResult(frozenset((1,)), "accession"),
        ),
        (
            StudyIdentity("9", JANE, (), (("A", ""),)),
            [order(1, accession=("A", ""), status=OrderStatus.CANCELLED), order(2, accession=("A", ""))],
            MatchResult(frozenset((2,)), "accession"),
        ),
        # PatientID without an issuer is that of any; two issuers are two patients.
        (
            StudyIdentity("1.1", PatientIdentity(2, "P1", "")),
            [order(1, patient=PatientIdentity(1, "P1", "HOSP"))],
            MatchResult(frozenset((1,)), "study-uid"),
        ),
        (
            StudyIdentity("1.1", PatientIdentity(2, "P1", "X")),
            [order(1, patient=PatientIdentity(1, "P1", "Y"))],
            NOT_HERS,
        ),
    ],
)
def test_rules(identity: StudyIdentity, candidates: list[OrderIdentity], expected: MatchResult) -> None:
    assert expected == match_orders(identity, candidates)
    assert expected == match_orders(identity, candidates[::-1])


def test_the_table_of_rules_is_configurable() -> None:
    identity = StudyIdentity("1.1", JANE, (), (("A2", ""),))
    assert MatchResult(frozenset((2,)), "accession") == match_orders(
        identity, [FIRST, SECOND], ("accession", "study-uid")
    )
    assert MatchResult() == match_orders(StudyIdentity("1.1", JANE), [FIRST], ("accession",))


def resource(index: Index, uid: str, version: str = "r4", kind: str = "ImagingStudy") -> dict[str, Any]:
    path = index.data / "fhir" / version / kind / f"{uid}.json"
    return orjson.loads(path.read_bytes()) if path.exists() else {}


def order_reference(index: Index, uid: str, version: str = "r4") -> list[str]:
    name = "order" if version == "dstu2" else "basedOn"
    asked = resource(index, uid, version).get(name, [])
    return [one["reference"] for one in asked if "reference" in one]


def expect_order(index: Index, uid: str, *, count: int = 1) -> bool:
    return eventually(
        lambda: all(count == len(order_reference(index, uid, v)) for v in ("dstu2", "r4", "r5"))
    )


BY_UID: dict[str, Any] = {"StudyInstanceUID": "1.2.3.4", "AccessionNumber": None}
BY_ACCESSION: dict[str, Any] = {}


@pytest.mark.parametrize("attributes", [BY_UID, BY_ACCESSION])
@pytest.mark.parametrize("images_first", [True, False])
def test_images_before_and_after_their_order(
    index: Index, ris: Sender, attributes: dict[str, Any], *, images_first: bool
) -> None:
    dataset = instance(**attributes)
    del dataset.StudyDescription
    uid = str(dataset.StudyInstanceUID)
    message = orm(patient=pid(authority="HOSP"), uid="1.2.3.4")
    if images_first:
        keep(index, dataset)
        assert eventually(lambda: resource(index, uid, "dstu2"))
        assert [] == order_reference(index, uid)
        assert verdict(ris.send(message)) == "AA"
    else:
        assert verdict(ris.send(message)) == "AA"
        assert eventually(lambda: "registered" == resource(index, "1.2.3.4").get("status"))
        assert "registered" == resource(index, "1.2.3.4", "r5")["status"]
        assert {} == resource(index, "1.2.3.4", "dstu2")
        keep(index, dataset)
    assert expect_order(index, uid)
    study = resource(index, uid)
    assert ("available", "CT Head") == (study["status"], study["description"])
    assert "A1" in orjson.dumps(study["identifier"]).decode()
    request = resource(index, study["basedOn"][0]["reference"].split("/")[1], "r4", "ServiceRequest")
    assert ("active", "order") == (request["status"], request["intent"])
    assert request["occurrenceDateTime"].startswith("2026-01-05")
    # The study that was only ordered is gone where the images came under another UID.
    assert eventually(lambda: uid == "1.2.3.4" or {} == resource(index, "1.2.3.4"))
    assert [] == index.orders.unmatched()


def test_a_cancelled_order_without_images_is_a_cancelled_study(index: Index, ris: Sender) -> None:
    ris.send(orm(uid="1.2.3.4"))
    ris.send(orm("CA", uid="1.2.3.4"))
    assert eventually(lambda: "cancelled" == resource(index, "1.2.3.4").get("status"))


def test_an_order_that_is_removed_takes_its_study_along(index: Index, ris: Sender) -> None:
    ris.send(orm(uid="1.2.3.4"))
    assert eventually(lambda: resource(index, "1.2.3.4"))
    (order,) = index.orders.listed()
    index.orders.remove(order.id)
    assert eventually(lambda: {} == resource(index, "1.2.3.4"))
    with pytest.raises(NotFound):
        index.orders.remove(order.id)


def test_request_attributes_find_the_order(index: Index, ris: Sender) -> None:
    from pydicom.dataset import Dataset

    ris.send(orm(accession="OTHER"))
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "SPS1", "RP1"
    keep(index, instance(AccessionNumber=None, RequestAttributesSequence=[item]))
    assert expect_order(index, f"{ROOT}.1")


def test_another_patient_is_a_doubt_and_an_operator_decides(index: Index, ris: Sender) -> None:
    ris.send(orm(patient=pid("P2", "Roe^Ann")))
    keep(index, instance())
    uid = f"{ROOT}.1"
    assert eventually(
        lambda: (
            [(uid, "accession number found order 1, but not of this patient")]
            == [(one.uid, one.doubt) for one in index.orders.unmatched()]
        )
    )
    (order,) = index.orders.listed()
    index.orders.set_match(uid, order.id)
    assert expect_order(index, uid)
    assert [] == index.orders.unmatched()
    index.orders.undo_match(uid)
    assert expect_order(index, uid, count=0)
    keep(index, instance(number=2))
    assert eventually(lambda: 2 == resource(index, uid)["numberOfInstances"])
    assert [] == order_reference(index, uid)
    ris.send(adt("A40", pid("P1"), "MRG|P2^^^^MR"))
    index.orders.rematch(uid)
    assert expect_order(index, uid)
    with pytest.raises(NotFound, match="order 99"):
        index.orders.set_match(uid, 99)
    with pytest.raises(NotFound, match=r"study 1\.9"):
        index.orders.set_match("1.9", order.id)


def test_two_orders_for_one_accession_are_a_doubt(index: Index) -> None:
    for number in (1, 2):
        index.orders.add(
            NewOrder(
                Source.CLI,
                "",
                str(number),
                {"PatientID": "P1"},
                {"AccessionNumber": "A1", "RequestedProcedureID": f"R{number}"},
            )
        )
    keep(index, instance())
    assert eventually(
        lambda: (
            ["accession number found several: order 1, order 2"]
            == [one.doubt for one in index.orders.unmatched()]
        )
    )


def test_matching_survives_a_restart(served: Callable[..., Index]) -> None:
    index = served()
    sender = Sender(index.orders.hl7_address)
    sender.send(orm())
    sender.close()
    before = index.orders.listed()
    index = served()
    assert before == index.orders.listed()
    keep(index, instance())
    index = served()
    assert expect_order(index, f"{ROOT}.1")
    assert 1 == len(selected(index))


def test_matching_fails_no_store(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("brought up by matching")

    monkeypatch.setattr(index.orders._matches, "_changes", broken)
    assert "stored" == keep(index, instance()).outcome
