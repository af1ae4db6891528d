"""When the publisher writes a study that grows: after what its last rewrite took, and that of others."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from index import Index, PublishSettings
from index.database.connection import open_database
from index.publication.publisher import GROWING, SHARED_PAUSE, Publisher
from support.dicom import instance
from support.filling import STORAGE, keep

INTERVAL = 0.5


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr("index.publication.publisher.time.monotonic", lambda: 0.0)
    database = open_database(None, tmp_path)
    yield Publisher(database, cast("Any", None), PublishSettings(interval=INTERVAL, backoff=20))
    database.close()


def test_a_small_study_waits_for_the_interval(publisher: Publisher) -> None:
    publisher._remember(1, 0.01)
    publisher.schedule([1])
    assert {1: INTERVAL} == publisher._due


def test_a_large_study_waits_longer(publisher: Publisher) -> None:
    publisher._remember(1, 1.0)
    publisher.schedule([1])
    publisher.schedule([1])
    assert {1: 20.0} == publisher._due


def test_studies_that_grow_at_once_share_the_time(publisher: Publisher) -> None:
    for study in (1, 2, 3, 4):
        publisher._remember(study, 0.05)
        publisher.schedule([study])
    assert [1.0, 2.0, 3.0, 4.0] == [pytest.approx(at) for at in publisher._due.values()]


def test_a_patient_that_changes_does_not_wait_for_all_studies(publisher: Publisher) -> None:
    studies = range(500)
    for study in studies:
        publisher._remember(study, 0.02)
    publisher.schedule(studies)
    assert {SHARED_PAUSE} == set(publisher._due.values())


def test_a_study_that_is_scheduled_now_is_due_at_once(publisher: Publisher) -> None:
    publisher._remember(1, 1.0)
    publisher.schedule([1, 2])
    publisher.schedule_now([1])
    assert 0.0 == publisher._due[1]


def test_of_many_studies_the_latest_are_remembered(publisher: Publisher) -> None:
    for study in range(GROWING + 5):
        publisher._remember(study, 1.0)
    assert set(range(5, GROWING + 5)) == set(publisher._durations)


def test_logged_issues_are_remembered_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It held every study with a doubt that was ever published, for as long as the daemon ran."""
    monkeypatch.setattr("index.publication.study.REMEMBERED", 6)
    with Index(tmp_path / "data", STORAGE) as index, capture_logs() as logged:
        for study in range(1, 6):
            keep(index, instance(study, StudyDate="99999999"))
        index.publish()
        assert 6 == len(index._publication._logged)
        keep(index, instance(5, number=2, StudyDate="99999999"))
        index.publish()
    doubts = [event["study_uid"] for event in logged if event["event"] == "doubts"]
    # Of each study once for a version, also where it is published again soon.
    assert {instance(study).StudyInstanceUID: 3 for study in range(1, 6)} == Counter(doubts)
