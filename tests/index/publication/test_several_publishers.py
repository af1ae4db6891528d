"""A study that several nodes could publish is published by one at a time, and once."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index import Index, Origin, PublishSettings
from index.database.claims import Work
from index.database.connection import FEED_LOCK, Database
from index.database.opening import open_database
from index.database.tables import Change, Study
from index.errors import ClaimLost
from index.publication.study import Postponed
from support.daemon import Daemon, eventually
from support.dicom import ROOT, instance, save
from support.filling import ORIGIN, files, keep
from support.nodes import joined, without_publisher


@pytest.fixture
def two(shared_url: str, tmp_path: Path) -> Iterator[tuple[Index, Index]]:
    """Two nodes whose publishers do not run: what they would do is done by the test."""
    with joined(tmp_path / "one", shared_url) as one, joined(tmp_path / "two", shared_url) as other:
        yield without_publisher(one), without_publisher(other)


def row(index: Index, *columns: Any) -> Any:
    return index._database.rows(Study.select(*columns))[0]


def changes(index: Index) -> list[tuple[str, int]]:
    return [(entry.type, entry.version) for entry in index.changes() if entry.fhir == "r4"]


def test_what_another_node_publishes_is_left_to_it(two: tuple[Index, Index]) -> None:
    one, other = two
    keep(one, instance())
    (study,) = row(one, Study.id)
    with one._database.claims.claimed(Work.STUDY, study):
        assert isinstance(other._publication.publish(study), Postponed)
    assert [] == changes(one)
    result = other._publication.publish(study)
    assert not isinstance(result, Postponed)
    assert None is one._publication.publish(study)
    assert 0 == one._publisher.publish_all()
    assert [("Patient", 1), ("ImagingStudy", 1)] == changes(one)
    assert files(one.data / "fhir") == files(other.data / "fhir")


def test_a_claim_that_was_lost_writes_nothing(
    two: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node has published the study meanwhile: the older state must not come after the newer one."""
    one, other = two
    keep(one, instance(1, 1, 1))
    (study,) = row(one, Study.id)
    real = one._publication._resources

    def lose(*arguments: Any) -> Any:
        built = real(*arguments)
        with one._database.claims._lock:
            one._database.claims._close()
        keep(other, instance(1, 1, 2))
        other._publication.publish(study)
        return built

    monkeypatch.setattr(one._publication, "_resources", lose)
    with pytest.raises(ClaimLost):
        one._publication.publish(study)
    assert [("Patient", 1), ("ImagingStudy", 1)] == changes(one)
    assert (
        other.resource(f"{ROOT}.1", "r4")[0] == one.resources.read("r4", "ImagingStudy", f"{ROOT}.1").content
    )


def test_a_claim_that_is_lost_before_the_commit_writes_nothing(
    two: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    keep(one, instance())
    (study,) = row(one, Study.id)
    real = one._database.lock_feed

    def lose() -> None:
        real()
        with one._database.claims._lock:
            one._database.claims._close()

    monkeypatch.setattr(one._database, "lock_feed", lose)
    with pytest.raises(ClaimLost):
        one._publication.publish(study)
    monkeypatch.undo()
    assert [] == changes(one)
    one._publication.publish(study)
    assert [("Patient", 1), ("ImagingStudy", 1)] == changes(one)


def test_a_growing_study_is_paused_for_all_nodes(shared_url: str, tmp_path: Path) -> None:
    """Else it would be written as often again for each node."""
    pace = PublishSettings(interval=3600)
    with (
        joined(tmp_path / "one", shared_url, publish=pace) as one,
        joined(tmp_path / "two", shared_url, publish=pace) as other,
    ):
        for index in (one, other):
            without_publisher(index)
        keep(one, instance(1, 1, 1))
        (study,) = row(one, Study.id)
        one._publication.publish(study, grows=True)
        keep(other, instance(1, 1, 2))
        for index in (one, other):
            postponed = index._publication.publish(study, grows=True)
            assert isinstance(postponed, Postponed)
            assert 3500 < postponed.seconds <= 3600
        assert [("Patient", 1), ("ImagingStudy", 1)] == changes(one)
        # Its association has ended.
        other._publication.publish(study)
        assert ("ImagingStudy", 2) == changes(one)[-1]


def test_an_association_that_ends_publishes_what_came_over_others(shared_url: str, tmp_path: Path) -> None:
    pace = PublishSettings(interval=3600)
    with (
        joined(tmp_path / "one", shared_url, publish=pace) as one,
        joined(tmp_path / "two", shared_url, publish=pace) as other,
    ):
        for index in (one, other):
            index.serve()
        keep(other, instance(1, 1, 2), Origin("SCANNER", "ANY", "127.0.0.1", "another"))
        keep(one, instance(1, 1, 1))
        one.association_ended(ORIGIN.association)
        assert eventually(lambda: one.resources.read("r4", "ImagingStudy", f"{ROOT}.1"))
        assert b'"numberOfInstances":2' in one.resources.read("r4", "ImagingStudy", f"{ROOT}.1").content


def test_nodes_that_publish_at_the_same_time(two: tuple[Index, Index]) -> None:
    """Each study has one version for each of its contents, and each node all files."""
    one, other = two
    for number in (1, 2, 3):
        for study in range(1, 7):
            keep(two[(study + number) % 2], instance(study, 1, number, PatientID="SAME"))
        ready = threading.Barrier(2)

        def publish(index: Index, ready: threading.Barrier = ready) -> None:
            ready.wait(60)
            index._publisher.publish_all()

        threads = [threading.Thread(target=publish, args=(index,)) for index in two]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index in two:
            index._publisher.publish_all()
    versions = [version for kind, version in changes(one) if kind == "ImagingStudy"]
    assert sorted([1, 2, 3] * 6) == sorted(versions)
    assert files(one.data / "fhir") == files(other.data / "fhir")
    numbers = [number for (number,) in one._database.rows(Change.select(Change.id).order_by(Change.id))]
    assert len(numbers) == len(set(numbers))


def test_a_node_that_is_killed_while_it_publishes(
    start: Callable[..., Daemon], shared_url: str, tmp_path: Path
) -> None:
    """Another one takes over within 30 s: the claim ends with the process."""
    daemon = start(data=tmp_path / "killed", IMAGINGSTUDYD_INDEX__URL=shared_url)
    blocker = open_database(shared_url, tmp_path)
    with joined(tmp_path / "other", shared_url) as other:
        with blocker.writing():
            blocker.lock_feed()
            daemon.send(save(instance(), tmp_path / "one.dcm"), tool="storescu")
            assert eventually(lambda: is_waiting(other._database))
            (study,) = row(other, Study.id)
            assert isinstance(other._publication.publish(study), Postponed)
            daemon.kill()
        other.serve()
        assert eventually(lambda: [("Patient", 1), ("ImagingStudy", 1)] == changes(other))
    blocker.close()


def is_waiting(database: Database) -> bool:
    sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND NOT granted"
    with database.connection():
        return bool(database.peewee.execute_sql(sql, (FEED_LOCK,)).fetchone()[0])
