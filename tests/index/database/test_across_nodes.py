"""Orders, patients and steps that come to two nodes at once: each is there once, and nothing is lost."""

import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydicom.dataset import Dataset

from index import DuplicateStep, Index, IndexSettings
from index.database.connection import TRIES, tried_again
from index.database.statements import Statements
from index.database.tables import (
    CommitmentRow,
    ImagingOrder,
    Patient,
    PerformedStep,
    ScheduledStep,
    Source,
    Study,
    StudyOrder,
)
from index.errors import Contention
from index.orders.hl7.message import messages
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep
from support.hl7 import message, msh, orm, pid
from support.modality import begun
from support.postgresql import create_database, drop_database

_numbers = itertools.count()
ROUNDS = 8


@pytest.fixture
def two(migrated: str, tmp_path: Path) -> Iterator[tuple[Index, Index]]:
    """Two data directories of one index. They need not be served to take orders."""
    name = f"across{next(_numbers)}"
    settings = IndexSettings(url=SecretStr(create_database(migrated, name, "migrated")))
    one, other = (Index(tmp_path / str(number), STORAGE, settings, joins=True) for number in (1, 2))
    yield one, other
    for index in (one, other):
        index.close()
    drop_database(migrated, name)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call all at one moment, each in a thread; return what they return or raise."""
    ready, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number: int, call: Callable[[], Any]) -> None:
        ready.wait(60)
        try:
            results[number] = call()
        except Exception as error:  # noqa: BLE001  it is returned
            results[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def tell(index: Index, frame: bytes) -> list[str]:
    return [index.orders._handler.handle(one)[0] for one in messages(frame)]


def both(two: tuple[Index, Index], frame: Callable[[int], bytes]) -> list[Any]:
    """Tell both nodes the frames of numbers 0 and 1."""
    return at_once(*(lambda index=index, n=n: tell(index, frame(n)) for n, index in enumerate(two)))


def rows(index: Index, *columns: Any) -> list[Any]:
    return sorted(index._database.rows(columns[0].model.select(*columns)))


def numbers(number: int) -> dict[str, str]:
    return {name: f"{name[0]}{number}" for name in ("placer", "filler", "accession", "procedure", "step")}


def test_one_order_by_hl7(two: tuple[Index, Index]) -> None:
    """Two lists of a broker, or a message that is sent again to another node."""
    for number in range(ROUNDS):
        frame = orm(patient=pid(f"P{number}"), **numbers(number))
        assert [["AA"], ["AA"]] == both(two, lambda _, frame=frame: frame)
    assert [(f"a{number}",) for number in range(ROUNDS)] == rows(two[0], ImagingOrder.accession)
    for table in (Patient, ScheduledStep, Study):
        assert ROUNDS == len(rows(two[0], table.id))


def test_changes_of_one_order(two: tuple[Index, Index]) -> None:
    """What comes of both is what comes of one after the other."""

    def changes(number: int) -> tuple[bytes, bytes]:
        changed = orm("XO", patient=pid(name="Roe^Jo"), **numbers(number))
        return changed, orm("CA", **numbers(number))

    for number in range(ROUNDS):
        assert ["AA"] == tell(two[0], orm(**numbers(number)))
        frames = changes(number)
        if number < 2:
            assert ["AA", "AA"] == tell(two[0], frames[number]) + tell(two[0], frames[1 - number])
        else:
            assert [["AA"], ["AA"]] == both(two, lambda n, frames=frames: frames[n])
    found = rows(two[0], ImagingOrder.id, ImagingOrder.patient_name, ImagingOrder.status)
    assert ROUNDS == len(found)
    assert {row[1:] for row in found[:2]} >= {row[1:] for row in found[2:]}


def merge(old: str, new: str) -> bytes:
    return message(msh("ADT^A40"), "EVN|A40|20260105", pid(new), f"MRG|{old}^^^^MR")


def test_merges_of_the_same_patients(two: tuple[Index, Index]) -> None:
    """Also against each other, and beside new orders of the patient that goes."""
    for number in range(ROUNDS):
        old, new = f"OLD{number}", f"NEW{number}"
        for name in (old, new):
            assert ["AA"] == tell(two[0], orm(patient=pid(name), **numbers(hash(name) % 10**6)))
        frames = (
            (merge(old, new), merge(old, new)),
            (merge(old, new), orm(patient=pid(old), **numbers(5000 + number))),
            (merge(old, new), merge(new, old)),
        )[number % 3]
        assert [["AA"], ["AA"]] == both(two, lambda n, frames=frames: frames[n])
    found = rows(two[0], Patient.id, Patient.key, Patient.survivor)
    assert 2 * ROUNDS == len({key for _, key, _ in found}) == len(found)
    gone = {row for row, _, survivor in found if survivor is not None}
    assert ROUNDS == len(gone)
    assert set() == gone & {patient for (patient,) in rows(two[0], ImagingOrder.patient)}
    assert set() == gone & {survivor for _, _, survivor in found}


def test_one_procedure_step(two: tuple[Index, Index]) -> None:
    """PS3.4 Section F.7.2.1: the second N-CREATE of a UID is a duplicate (0111)."""
    for number in range(ROUNDS):
        uid = f"1.2.3.{number}"
        done = at_once(*(partial(index.procedures.create, uid, "CT1", begun(study_uid=uid)) for index in two))
        assert 1 == sum(isinstance(one, DuplicateStep) for one in done), done
        assert 1 == sum(hasattr(one, "state") for one in done), done
    assert ROUNDS == len(rows(two[1], PerformedStep.id))


def test_a_step_goes_on_at_another_node(two: tuple[Index, Index]) -> None:
    """N-SETs of both at once: neither undoes what the other has set."""
    one, other = two
    for number in range(ROUNDS):
        uid = f"1.2.3.{number}"
        one.procedures.create(uid, "CT1", begun(study_uid=uid))
        mine, theirs = Dataset(), Dataset()
        mine.PerformedProcedureStepDescription = "Neck"
        theirs.PerformedProcedureStepEndDate = "20260103"
        done = at_once(
            lambda uid=uid, mine=mine: one.procedures.update(uid, mine),
            lambda uid=uid, theirs=theirs: other.procedures.update(uid, theirs),
        )
        assert all(hasattr(result, "state") for result in done), done
        kept = one.procedures.get(uid)
        assert ("Neck", "20260103") == (
            kept.PerformedProcedureStepDescription,
            kept.PerformedProcedureStepEndDate,
        )
        ending = Dataset()
        ending.PerformedProcedureStepStatus = "COMPLETED"
        assert "COMPLETED" == other.procedures.update(uid, ending).state


def test_one_commitment(two: tuple[Index, Index]) -> None:
    """A modality that repeats its N-ACTION over another association (PS3.4 Section J.3.2.1)."""
    asked = [("1.2.840.10008.5.1.4.1.1.2", f"{ROOT}.1.1.1")]
    for number in range(ROUNDS):
        calls = [partial(index.commitments.ask, "CT1", f"1.2.{number}", asked) for index in two]
        assert {int} == {type(result) for result in at_once(*calls)}
    assert ROUNDS == len(rows(two[0], CommitmentRow.id))


def test_instances_orders_and_matches_at_once(two: tuple[Index, Index]) -> None:
    """Reception, HL7 and publication change rows of the same studies and patients in orders of their own."""
    studies = range(1, ROUNDS + 1)

    def receive(index: Index, first: int) -> None:
        for number in studies:
            keep(index, instance(number, 1, first, PatientID=f"P{number}", AccessionNumber=f"a{number}"))

    def order(index: Index) -> list[str]:
        frames = (orm(patient=pid(f"P{n}"), uid=f"{ROOT}.{n}", **numbers(n)) for n in reversed(studies))
        return [answer for frame in frames for answer in tell(index, frame)]

    def publish(index: Index) -> None:
        index._publisher.publish_all()

    calls = [lambda n=n, index=index: receive(index, n) for n, index in enumerate((*two, *two), 1)]
    calls += [lambda index=index: order(index) for index in two]
    calls += [lambda index=index: publish(index) for index in two]
    done = at_once(*calls)
    assert [None] * 4 + [["AA"] * ROUNDS] * 2 + [None] * 2 == done
    for index in two:
        index._publisher.publish_all()
    assert [(4,)] * ROUNDS == rows(two[0], Study.instance_count)
    assert [(f"{ROOT}.{number}",) for number in studies] == rows(two[0], StudyOrder.study_uid)
    assert ROUNDS == len(rows(two[0], Patient.id)) == len(rows(two[0], ImagingOrder.id))


def test_the_same_scanner_and_patient_hold_up_no_other_node(two: tuple[Index, Index]) -> None:
    """What is there is read, without a lock: a router sends from one address to all nodes."""
    one, other = two
    keep(one, instance(1))
    with one._database.writing():
        known = Statements(one._database)
        assert known.source.one(calling_aet="SCANNER", called_aet="IMAGINGSTUDYD", address="127.0.0.1")
        ((key,),) = one._database.rows(Patient.select(Patient.key))
        assert known.patient.one(key=key)
        (study,) = known.study.one(uid=f"{ROOT}.1", received=0)
        assert known.series.one(study=study, uid=f"{ROOT}.1.1")
        done: list[Any] = []
        sending = threading.Thread(target=lambda: done.append(keep(other, instance(1, 2))))
        sending.start()
        sending.join(60)
        assert 1 == len(done)
    sending.join()
    assert (1, 1) == (len(rows(one, Source.id)), len(rows(one, Patient.id)))


def test_contention_is_tried_again_three_times() -> None:
    calls = []

    @tried_again
    def contend(succeeds: int) -> str:
        calls.append(succeeds)
        if len(calls) < succeeds:
            raise Contention("database: deadlock detected")
        return "done"

    assert (3, "done", 4) == (TRIES, contend(4), len(calls))
    calls.clear()
    with pytest.raises(Contention):
        contend(5)
    assert 4 == len(calls)
