"""Which studies an order marks to be published again: those that it can belong to, and no others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from index import Index, NewOrder, Source
from index.database.tables import Study
from index.orders.matching.study_identity import candidate_orders, identity_of
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep

STRANGERS = 30


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with studies of many patients, all of procedure "1" and step "1", as many RIS send them."""
    with Index(tmp_path / "data", STORAGE) as index:
        for number in range(1, STRANGERS + 1):
            study(index, number, PatientID=f"P{number}", AccessionNumber=f"A{number}")
        index.publish()
        assert [] == marked(index)
        yield index


def study(index: Index, number: int, **attributes: Any) -> None:
    requested = Dataset()
    requested.ScheduledProcedureStepID = requested.RequestedProcedureID = "1"
    keep(index, instance(number, RequestAttributesSequence=[requested], **attributes))


def marked(index: Index) -> list[str]:
    rows = index._database.rows(Study.select(Study.uid).where(Study.revision != Study.published))
    return sorted(uid.removeprefix(f"{ROOT}.") for (uid,) in rows if uid.startswith(ROOT))


def order(number: str = "PL1", patient: str = "P7", accession: str = "", **patients: Any) -> NewOrder:
    numbers = {
        "AccessionNumber": accession,
        "RequestedProcedureID": "1",
        "StudyInstanceUID": f"1.2.{number[2:]}",
    }
    steps = [{"ScheduledProcedureStepID": "1"}]
    return NewOrder(Source.CLI, "", number, {"PatientID": patient, **patients}, numbers, steps)


def test_a_shared_step_id_counts_with_its_patient_only(index: Index) -> None:
    index.orders.add(order())
    assert ["7"] == marked(index)
    index.publish()
    assert ["CLI"] == [one.source.name for one in index.orders.listed() if one.studies == (f"{ROOT}.7",)]


def test_an_accession_number_counts_alone(index: Index) -> None:
    index.orders.add(order(patient="NOBODY", accession="A9"))
    assert ["9"] == marked(index)
    index.publish()
    doubts = {one.uid.removeprefix(f"{ROOT}."): one.doubt for one in index.orders.unmatched()}
    assert doubts.pop("9").endswith("accession number found order 1, but not of this patient")
    assert {"no order fits"} == set(doubts.values())


def test_the_patient_is_found_by_number_whoever_issued_it(index: Index) -> None:
    index.orders.add(order(IssuerOfPatientID="HOSP"))
    assert ["7"] == marked(index)
    index.publish()
    assert [(f"{ROOT}.7",)] == [one.studies for one in index.orders.listed()]


def test_an_order_that_changes_marks_what_it_was_and_what_it_is(index: Index) -> None:
    index.orders.add(order())
    index.publish()
    index.orders.add(order(patient="P8"))
    assert ["7", "8"] == marked(index)
    index.publish()
    assert [(f"{ROOT}.8",)] == [one.studies for one in index.orders.listed()]
    index.orders.remove(1)
    assert ["8"] == marked(index)


def test_a_study_looks_at_the_orders_of_its_patient_only(index: Index) -> None:
    for number in range(1, STRANGERS + 1):
        index.orders.add(order(f"PL{number}", f"P{number}"))
    ((row, uid),) = index._database.rows(Study.select(Study.id, Study.uid).where(Study.uid == f"{ROOT}.5"))
    facts = identity_of(index._database, row, uid)
    assert facts
    assert ["P5"] == [option.patient.number for option in candidate_orders(index._database, facts)]


@pytest.mark.sqlite
def test_marking_is_one_statement_without_a_list(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40, 80):
        study(index, number, PatientID="P7", AccessionNumber="A7")
    index.publish()
    execute = index._database.peewee.execute_sql
    seen: list[int] = []

    def watch(sql: str, parameters: Any = None) -> Any:
        if sql.startswith('UPDATE "study" ') or 'FROM "study_key"' in sql.partition("WHERE")[0]:
            seen.append(len(parameters or ()))
        return execute(sql, parameters)

    monkeypatch.setattr(index._database.peewee, "execute_sql", watch)
    index.orders.add(order(accession="A7"))
    assert 41 == len(marked(index))
    assert (1, True) == (len(seen), max(seen) < 20)
