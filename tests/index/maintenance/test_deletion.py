"""Deletion: rows, objects and resources of one study go, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import FhirSettings, Index, NotFound
from index.database.tables import Conflict, Instance, RemovedObject, Series, SeriesVariant, StudyVariant
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep

ERROR = FhirSettings(withdrawn="entered-in-error")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "data", STORAGE)
    yield index
    index.close()


def fill(index: Index) -> None:
    for study in (1, 2):
        for series in (1, 2):
            for number in (1, 2, 3):
                keep(index, instance(study, series, number, StudyID=str(number % 2)))
    keep(index, instance(1, 1, 1, StudyDescription="another"))
    index.publish()


def count(index: Index, table: type) -> int:
    return len(index._database.rows(table.select(table.id)))


def test_a_study_goes_with_all_that_is_its_own(index: Index) -> None:
    fill(index)
    others = {
        name: content for name, content in files(index.data / "fhir").items() if f"{ROOT}.1." not in name
    }
    deleted = index.delete(f"{ROOT}.1")
    assert ("study", 6, 1) == (deleted.level, deleted.instances, deleted.conflicts)
    assert 1 == index.publish()
    assert [f"{ROOT}.2"] == [study["uid"] for study in index.studies()]
    assert (6, 0) == (len(files(index.data / "objects")), len(files(index.data / "conflicts")))
    rest = files(index.data / "fhir")
    assert {f"{ROOT}.2"} == {Path(name).stem for name in rest if "ImagingStudy" in name}
    assert 3 == len([name for name in rest if "Patient" in name])
    assert rest.items() <= others.items() | rest.items()
    counts = [
        count(index, table)
        for table in (Instance, Series, SeriesVariant, StudyVariant, Conflict, RemovedObject)
    ]
    assert [6, 2, 2, 2, 0, 0] == counts
    assert "deleted" in {entry.change for entry in index.changes()}


def test_a_series_and_an_instance(index: Index) -> None:
    fill(index)
    assert ("series", 3) == ((deleted := index.delete(f"{ROOT}.1.2")).level, deleted.instances)
    assert ("instance", 1) == ((deleted := index.delete(f"{ROOT}.1.1.2")).level, deleted.instances)
    index.publish()
    assert [(1, 2), (2, 6)] == [(study["series"], study["instances"]) for study in index.studies()]
    resource = json.loads(index.resource(f"{ROOT}.1", "r4")[0])
    assert [f"{ROOT}.1.1.1", f"{ROOT}.1.1.3"] == [one["uid"] for one in resource["series"][0]["instance"]]
    assert 8 == len(files(index.data / "objects"))


def test_the_last_instance_takes_the_study_along(index: Index) -> None:
    keep(index, instance())
    index.publish()
    index.delete(f"{ROOT}.1.1.1")
    index.publish()
    assert ([], {}) == (index.studies(), files(index.data / "fhir"))


def test_what_is_deleted_may_come_again(index: Index) -> None:
    fill(index)
    before = index.resource(f"{ROOT}.1")[0]
    index.delete(f"{ROOT}.1")
    index.publish()
    fill(index)
    assert before == index.resource(f"{ROOT}.1")[0]
    assert before == (index.data / f"fhir/dstu2/ImagingStudy/{ROOT}.1.json").read_bytes()


def test_entered_in_error(tmp_path: Path) -> None:
    index = Index(tmp_path, STORAGE, fhir=ERROR)
    fill(index)
    before = index.resource(f"{ROOT}.1", "r4")[0]
    index.delete(f"{ROOT}.1")
    index.publish()
    for version in ("r4", "r5"):
        path = tmp_path / f"fhir/{version}/ImagingStudy/{ROOT}.1.json"
        assert "entered-in-error" == json.loads(path.read_bytes())["status"]
    assert not (tmp_path / f"fhir/dstu2/ImagingStudy/{ROOT}.1.json").exists()
    assert 6 == len(files(tmp_path / "objects"))
    with pytest.raises(NotFound):
        index.delete(f"{ROOT}.1")
    fill(index)
    assert before == index.resource(f"{ROOT}.1", "r4")[0]
    index.close()


def test_a_crash_before_the_files_are_gone_brings_nothing_back(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index)

    def crash(_: object, __: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("index.storage.object_store.ObjectStore.remove", crash)
        with pytest.raises(KeyboardInterrupt):
            index.delete(f"{ROOT}.1")
    assert 12 == len(files(index.data / "objects"))
    index.serve()
    assert 6 == len(files(index.data / "objects"))
    assert [f"{ROOT}.2"] == [study["uid"] for study in index.studies()]


def test_what_is_not_there(index: Index) -> None:
    with pytest.raises(NotFound, match=r"1\.2\.3 is no study, series or instance"):
        index.delete("1.2.3")
