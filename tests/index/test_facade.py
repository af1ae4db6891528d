"""The index by its façade, without a network."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import (
    Disagreement,
    Index,
    InvalidUID,
    Locked,
    NotKept,
    Outcome,
    StorageSettings,
    TooLarge,
    Unreadable,
)
from support.dicom import ROOT, encoded, instance
from support.filling import ORIGIN, STORAGE, files, keep, keep_by_threads

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "data", STORAGE)
    yield index
    index.close()


def test_counts_are_kept_as_instances_arrive(index: Index) -> None:
    for series in (1, 2):
        for number in (1, 2, 3):
            assert Outcome.STORED is keep(index, instance(1, series, number)).outcome
    (study,) = index.studies()
    assert {
        "uid": f"{ROOT}.1",
        "patient_id": "P1",
        "accession": "A1",
        "modalities": ("CT",),
        "series": 2,
        "instances": 6,
        "started": "2026-01-02",
    } == study


def test_a_duplicate_is_success_and_changes_nothing(index: Index) -> None:
    keep(index, instance())
    index.publish()
    before = files(index.data / "fhir") | files(index.data / "objects")
    assert Outcome.DUPLICATE is keep(index, instance()).outcome
    assert 0 == index.publish()
    assert before == files(index.data / "fhir") | files(index.data / "objects")


def test_the_first_acknowledged_stays_and_the_other_is_kept_aside(index: Index) -> None:
    keep(index, instance())
    other = instance(StudyDescription="Neck")
    assert Outcome.CONFLICT is keep(index, other).outcome
    assert Outcome.CONFLICT is keep(index, other).outcome
    assert 1 == len(files(index.data / "objects"))
    (aside,) = files(index.data / "conflicts").values()
    assert aside.endswith(encoded(other))
    assert "Head" in index.resource(f"{ROOT}.1")[0].decode()


def test_conflicts_are_bounded(tmp_path: Path) -> None:
    index = Index(tmp_path, STORAGE.model_copy(update={"conflicts": 2}))
    for text in "ABCDE":
        keep(index, instance(StudyDescription=text))
    assert (1, 2) == (len(files(index.data / "objects")), len(files(index.data / "conflicts")))
    index.close()


def test_replace_turns_it_round(tmp_path: Path) -> None:
    index = Index(tmp_path, STORAGE.model_copy(update={"duplicates": "replace"}))
    keep(index, instance())
    keep(index, instance(number=2))
    other = instance(study=2, series=7, number=1, SOPInstanceUID=instance().SOPInstanceUID)
    assert Outcome.REPLACED is keep(index, other).outcome
    assert [(1, 1), (1, 1)] == [(study["series"], study["instances"]) for study in index.studies()]
    assert 1 == len(files(index.data / "conflicts"))
    index.close()


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"StudyInstanceUID": None}, InvalidUID),
        ({"SeriesInstanceUID": None}, InvalidUID),
        ({"StudyInstanceUID": "../../etc/passwd"}, InvalidUID),
        ({"SeriesInstanceUID": "1." + "2" * 63}, InvalidUID),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_has_no_uids_is_refused_and_leaves_nothing(
    index: Index, attributes: dict[str, str], error: type
) -> None:
    with pytest.raises(error):
        keep(index, instance(**attributes))
    assert {} == files(index.data / "objects") | files(index.data / "incoming")
    assert [] == index.studies()


def test_command_and_data_set_must_agree(index: Index) -> None:
    incoming = index.receive(ORIGIN, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", EXPLICIT)
    incoming.write(encoded(instance()))
    with pytest.raises(Disagreement, match=r"SOP Instance UID: command says 1\.2\.3, data set says"):
        incoming.keep()


def test_a_data_set_that_cannot_be_read_as_far_as_its_uids(index: Index) -> None:
    dataset = instance()
    incoming = index.receive(ORIGIN, dataset.SOPClassUID, dataset.SOPInstanceUID, EXPLICIT)
    incoming.write(encoded(dataset)[:20])
    with pytest.raises((Unreadable, InvalidUID, Disagreement)):
        incoming.keep()
    assert {} == files(index.data / "objects") | files(index.data / "incoming")


def test_an_object_over_the_limit_is_not_kept(tmp_path: Path) -> None:
    index = Index(tmp_path, STORAGE, object_size=100_000)
    incoming = index.receive(ORIGIN, "1.2", "1.2.3", EXPLICIT)
    incoming.write(bytes(99_000))
    with pytest.raises(TooLarge, match=r"limits\.object_size = 100000"):
        incoming.write(bytes(1_000))
    incoming.discard()
    assert {} == files(tmp_path / "incoming")
    index.close()


def test_below_the_watermark_nothing_is_accepted(tmp_path: Path) -> None:
    index = Index(tmp_path, StorageSettings(watermark=1 << 62))
    with pytest.raises(NotKept, match=r"storage\.watermark"):
        keep(index, instance())
    index.close()


def test_only_one_daemon_for_a_data_directory(tmp_path: Path) -> None:
    first, second = Index(tmp_path, STORAGE), Index(tmp_path, STORAGE)
    first.serve()
    with pytest.raises(Locked, match=str(os.getpid())):
        second.serve()
    second.close()
    first.close()


INSTANCES = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=20, unique=True
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    INSTANCES,
    st.randoms(use_true_random=False),
    st.lists(st.sampled_from(["Head", "Neck", "Abdomen"]), min_size=20, max_size=20),
    st.lists(st.sampled_from(["101112", "0900", "2359"]), min_size=20, max_size=20),
)
def test_any_order_by_four_associations_gives_the_same_bytes(
    numbers: list[tuple[int, int, int]], order: random.Random, texts: list[str], times: list[str]
) -> None:
    datasets = [
        instance(
            *uids, StudyDescription=text, StudyTime=at, SeriesTime=at, SeriesDate="20260102", PatientID="P1"
        )
        for uids, text, at in zip(numbers, texts, times, strict=False)
    ]
    results = []
    for threads in (1, 4):
        with TemporaryDirectory() as folder:
            index = Index(Path(folder), STORAGE)
            order.shuffle(datasets)
            keep_by_threads(index, datasets, threads)
            index.publish()
            results.append(files(Path(folder) / "fhir"))
            index.close()
    assert results[0]
    assert results[0] == results[1]


def test_an_import_that_is_begun_again_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.dicom import save

    for number in range(1, 6):
        save(instance(number=number), tmp_path / "send" / f"{number}.dcm")
    with Index(tmp_path / "data", STORAGE) as index:
        assert {"stored": 5} == index.import_files([tmp_path / "send"]).outcomes
        monkeypatch.setattr(index, "receive", None)
        assert {"duplicate": 5} == index.import_files([tmp_path / "send"]).outcomes
