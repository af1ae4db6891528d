"""An import that is stopped: what has begun is ended and reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index import Index, NotKept
from index.database.instance_rows import InstanceRows
from index.publication import periodic
from index.reception import import_files
from index.storage.object_store import ObjectStore
from support.dicom import instance, save
from support.filling import STORAGE

BATCH = 8
# A batch is copied while the one before it is committed.
AHEAD = 2 * BATCH


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_files, "BATCH_FILES", BATCH)


def sent(folder: Path, count: int) -> Path:
    for number in range(1, count + 1):
        save(instance(number, 1, 1), folder / f"{number:03}.dcm")
    return folder


@pytest.mark.parametrize("after", [0, 1, AHEAD, 2 * AHEAD])
def test_no_file_is_begun_once_it_is_stopped(tmp_path: Path, after: int) -> None:
    folder = sent(tmp_path / "send", 3 * AHEAD)
    done: list[None] = []
    with Index(tmp_path / "data", STORAGE) as index:
        report = index.import_files([folder], lambda: done.append(None), lambda: len(done) >= after)
        assert report.interrupted
        stored = report.outcomes["stored"]
        assert after <= stored <= after + AHEAD
        assert [stored, []] == [len(index.studies()), report.failed]
        again = index.import_files([folder]).outcomes
        assert (3 * AHEAD - stored, stored) == (again["stored"], again["duplicate"])


def test_one_that_is_stopped_at_its_very_end_was_not_interrupted(tmp_path: Path) -> None:
    folder = sent(tmp_path / "send", 3)
    done: list[None] = []
    with Index(tmp_path / "data", STORAGE) as index:
        report = index.import_files([folder], lambda: done.append(None), lambda: len(done) >= 3)
        assert (3, False) == (report.outcomes["stored"], report.interrupted)


def test_a_file_is_synced_before_it_stands_in_objects_and_its_name_before_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut at any moment leaves nothing half in `objects/`, and no row without its object."""
    calls: list[str] = []

    def noted(name: str, of: Callable[..., Any], note: Callable[..., str]) -> None:
        def call(*arguments: Any, **values: Any) -> Any:
            calls.append(note(*arguments))
            return of(*arguments, **values)

        monkeypatch.setattr(ObjectStore if hasattr(ObjectStore, name) else InstanceRows, name, call)

    for name, sync in (("sync_group", ObjectStore.sync_group), ("sync_folders", ObjectStore.sync_folders)):
        noted(name, sync, lambda _, paths: f"sync {paths[0].split('/')[0]}")
    noted("move", ObjectStore.move, lambda _, __, target: f"move {target.split('/')[0]}")
    noted("add", InstanceRows.add, lambda _, batch: f"rows {len(batch)}")
    with Index(tmp_path / "data", STORAGE) as index:
        index.import_files([sent(tmp_path / "send", 3)])
    assert ["sync incoming", *3 * ["move objects"], "sync objects", "rows 3"] == calls


def test_a_batch_that_fails_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, failures = InstanceRows.add, [NotKept("database: database is locked")]

    def fail_once(rows: InstanceRows, batch: Any) -> list[int]:
        if failures:
            raise failures.pop()
        return add(rows, batch)

    monkeypatch.setattr(InstanceRows, "add", fail_once)
    folder = sent(tmp_path / "send", 2 * BATCH)
    with Index(tmp_path / "data", STORAGE) as index:
        report = index.import_files([folder])
        assert (BATCH, BATCH) == (report.outcomes["stored"], len(report.failed))
        assert {"database: database is locked"} == {reason for _, reason in report.failed}
        assert BATCH == len(list((tmp_path / "data/objects").rglob("*.dcm")))
        assert [] == list((tmp_path / "data/incoming").iterdir())
        again = index.import_files([folder]).outcomes
        assert (BATCH, BATCH) == (again["stored"], again["duplicate"])


def test_two_data_sets_of_one_uid_in_one_batch(tmp_path: Path) -> None:
    folder = sent(tmp_path / "send", 2)
    save(instance(1, 1, 1), folder / "again.dcm")
    other = instance(1, 1, 1)
    other.PatientComments = "another data set"
    save(other, folder / "other.dcm")
    with Index(tmp_path / "data", STORAGE) as index:
        report = index.import_files([folder])
        assert {"stored": 2, "duplicate": 1, "conflict": 1} == dict(report.outcomes)
        assert [] == list((tmp_path / "data/incoming").iterdir())
        assert 1 == len(list((tmp_path / "data/conflicts").iterdir()))


def test_what_came_so_far_is_published_where_no_daemon_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "INTERVAL", 0.0)
    monkeypatch.setattr(periodic, "DURATION", 60.0)
    published: list[int] = []
    folder = sent(tmp_path / "send", 4 * BATCH)
    with Index(tmp_path / "data", STORAGE) as index:
        resources = tmp_path / "data/fhir/r4/ImagingStudy"
        index.import_files([folder], lambda: published.append(len(list(resources.glob("*.json")))))
        assert 0 < published[-1] < 4 * BATCH
