"""When the publisher writes a study that grows: after what its last rewrite took, and that of others."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from index import Index, PublishSettings
from index.database.opening import open_database
from index.publication.due import DueStudies
from index.publication.publisher import GROWING, RETRY_INTERVAL, SHARED_PAUSE, Publisher
from index.publication.study import PublicationResult
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
    assert {1: INTERVAL} == publisher._due.times


def test_a_large_study_waits_longer(publisher: Publisher) -> None:
    publisher._remember(1, 1.0)
    publisher.schedule([1])
    publisher.schedule([1])
    assert {1: 20.0} == publisher._due.times


def test_studies_that_grow_at_once_share_the_time(publisher: Publisher) -> None:
    for study in (1, 2, 3, 4):
        publisher._remember(study, 0.05)
        publisher.schedule([study])
    assert [1.0, 2.0, 3.0, 4.0] == [pytest.approx(at) for at in publisher._due.times.values()]


def test_a_patient_that_changes_does_not_wait_for_all_studies(publisher: Publisher) -> None:
    studies = range(500)
    for study in studies:
        publisher._remember(study, 0.02)
    publisher.schedule(studies)
    assert {SHARED_PAUSE} == set(publisher._due.times.values())


def test_a_study_that_is_scheduled_now_is_due_at_once(publisher: Publisher) -> None:
    publisher._remember(1, 1.0)
    publisher.schedule([1, 2])
    publisher.schedule_now([1])
    assert 0.0 == publisher._due.times[1]


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


def test_a_complete_study_is_not_behind_those_that_grow(publisher: Publisher) -> None:
    """As number 401 behind 400 that grow it was published 13 s late."""
    publisher.schedule(range(400))
    publisher.schedule_now([401, 7])
    order = [publisher._take(INTERVAL) for _ in range(402)]
    assert [(7, False), (0, True), (401, False), (1, True)] == order[:4]
    assert sorted({*range(400), 401}) == sorted(one[0] for one in order if one is not None)


def test_the_longest_due_comes_first_and_is_taken_once() -> None:
    due = DueStudies()
    for study, at in ((1, 3.0), (2, 1.0), (3, 2.0), (2, 0.5)):
        due.add(study, at)
    assert (1.0, 3) == (due.first(), len(due))
    assert None is due.pop(0.9)
    due.add_complete(1, 2.5)
    due.add_complete(1, 2.6)
    assert [(1, 2.5, False), (2, 1.0, True), (3, 2.0, True), None] == [due.pop(9.0) for _ in range(4)]
    assert (math.inf, 0) == (due.first(), len(due))


def test_many_studies_that_one_order_touches_cost_their_number(publisher: Publisher) -> None:
    publisher.schedule(range(40_000))
    publisher.schedule_now([50_000])
    assert (50_000, False) == publisher._take(INTERVAL)
    assert 40_001 == publisher.waiting()  # with the one that is being published


def test_a_growing_study_that_is_complete_keeps_the_time_since_when_it_is_due() -> None:
    due = DueStudies()
    due.add(1, 10.0)
    due.add_complete(2, 12.0)
    due.add_complete(1, 13.0)
    assert 10.0 == due.first()
    assert [(1, 10.0, False), (2, 12.0, False)] == [due.pop(20.0) for _ in range(2)]


def test_what_waiting_studies_take_is_added_up_without_drift(publisher: Publisher) -> None:
    publisher._remember(1, 2.0)
    publisher.schedule([1, 2])
    assert 2.0 == publisher._due.seconds
    publisher.schedule_now([1])
    assert 2.0 == publisher._due.seconds
    assert (1, False) == publisher._take(0.0)
    publisher._remember(1, 5.0)
    publisher.schedule([1])
    assert 5.0 == publisher._due.seconds
    assert {(1, True), (2, True)} == {publisher._take(1000.0), publisher._take(1000.0)}
    assert 0.0 == publisher._due.seconds


def test_the_lag_begins_with_the_first_instance_that_is_not_shown(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    lags: list[float | None] = []
    failures = [OSError(28, "No space left on device")]

    class Publication:
        def publish(self, _: int, **__: Any) -> PublicationResult:
            if failures:
                raise failures.pop()
            return PublicationResult("1.2.3", 2, 6, 0)

    monkeypatch.setattr(publisher, "_publication", Publication())
    monkeypatch.setattr(publisher._observer, "published", lambda _, lag: lags.append(lag))
    publisher.indexed("one", {1: -5.0})
    publisher.indexed("two", {1: -2.0})
    assert [RETRY_INTERVAL, None, None] == [publisher._publish(1) for _ in range(3)]
    assert [5.0, None] == lags
