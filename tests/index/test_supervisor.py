"""Threads that work for the whole daemon: they go on after a fault, and it is known how they stand."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from index import Index
from index.supervisor import HANGING_SECONDS, LOST_SECONDS, RECOVERED_SECONDS, Supervisor, Worker
from support.daemon import eventually


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr("index.supervisor.FIRST_PAUSE", 0.001)
    made = Supervisor()
    yield made
    for worker in made._workers.values():
        worker.stop()


class Failing:
    """What runs in a thread: raises so many times, then works."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults = list(faults)
        self.works = threading.Event()
        self.worker: Worker

    def __call__(self) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.works.set()
        self.worker.stopping.wait()


def started(workers: Supervisor, run: Any, **options: bool) -> Worker:
    worker = workers.add("some-worker", run, **options)
    run.worker = worker
    worker.start()
    return worker


@pytest.mark.parametrize(
    "fault", [ValueError("odd"), MemoryError(), SystemExit(1), RuntimeError("can't start new thread")]
)
def test_it_goes_on_after_a_fault(fault: BaseException, workers: Supervisor) -> None:
    run = Failing(fault, fault)
    with capture_logs() as logged:
        worker = started(workers, run)
        assert run.works.wait(120)
        worker.stop()
    (state,) = workers.states()
    assert (2, type(fault).__name__) == (state.failures, state.fault)
    assert f"failed: {type(fault).__name__}" == state.summary
    assert ["worker_failed", "worker_failed"] == [event["event"] for event in logged]


def test_one_that_returns_is_begun_again(workers: Supervisor) -> None:
    times = []

    def run() -> None:
        times.append(1)

    worker = workers.add("short", run)
    worker.start()
    assert eventually(lambda: len(times) > 3)
    assert workers.states()[0].failures >= 3


def test_the_pauses_grow(workers: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that stays must not fill the log: 1 s, 2 s, ... up to a minute."""
    pauses: list[float] = []
    monkeypatch.setattr("index.supervisor.FIRST_PAUSE", 1.0)
    monkeypatch.setattr(Worker, "wait", lambda _, seconds: pauses.append(seconds))
    run = Failing(*[ValueError()] * 9)
    started(workers, run)
    assert run.works.wait(120)
    assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == pauses


def test_a_fault_is_over_after_a_while(workers: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Failing(ValueError())
    started(workers, run)
    assert run.works.wait(120)
    now = time.monotonic()
    monkeypatch.setattr("index.supervisor.time.monotonic", lambda: now + RECOVERED_SECONDS + 1)
    run.worker.rest()
    assert "ok" == workers.states()[0].summary


def test_a_fault_that_it_knows_of_is_over_when_the_work_is_done(workers: Supervisor) -> None:
    run = Failing()
    worker = started(workers, run)
    worker.failed(OSError("share lost"))
    assert "failed: OSError" == workers.states()[0].summary
    worker.done()
    assert ("ok", 1) == (workers.states()[0].summary, workers.states()[0].failures)


@pytest.mark.parametrize("depends", [False, True])
def test_one_that_hangs_is_told_of(
    depends: bool,  # noqa: FBT001
    workers: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where it hangs on another machine, another start of the daemon would not help."""
    run = Failing()
    worker = started(workers, run, depends=depends)
    assert run.works.wait(120)
    now = time.monotonic()
    monkeypatch.setattr("index.supervisor.time.monotonic", lambda: now + HANGING_SECONDS + 1)
    assert workers.states()[0].summary.startswith("no sign of life for 12")
    assert [] == workers.lost()
    monkeypatch.setattr("index.supervisor.time.monotonic", lambda: now + LOST_SECONDS + 1)
    assert ([] if depends else ["some-worker"]) == workers.lost()
    worker.rest()
    assert ("ok", []) == (workers.states()[0].summary, workers.lost())


def test_one_that_has_not_been_started_is_not_told_of(workers: Supervisor) -> None:
    workers.add("idle", lambda: None)
    assert [] == workers.states()


def test_every_thread_of_an_index_is_known(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in any of them is known, and none ends: each method that a thread runs fails once."""
    from index import RetentionSettings, WorklistSettings
    from index.completion.completions import Completions
    from index.database.node import _Heartbeat
    from index.maintenance.retention import MaintenanceWorker
    from index.orders.folder import WorklistFolder
    from index.orders.hl7.mllp import Listener
    from index.publication.publisher import Publisher
    from index.reception.indexer import Indexer
    from index.reception.settling import Settling

    monkeypatch.setattr("index.supervisor.FIRST_PAUSE", 0.001)
    failed: set[str] = set()

    def once(real: Callable[[Any], None]) -> Callable[[Any], None]:
        def run(self: Any) -> None:
            if self._worker.name not in failed:
                failed.add(self._worker.name)
                raise RuntimeError("odd")
            real(self)

        return run

    for kind, name in (
        (WorklistFolder, "_run"),
        (Listener, "_accept"),
        (Publisher, "_run"),
        (MaintenanceWorker, "_run"),
        (Indexer, "_run"),
        (Settling, "_run"),
        (_Heartbeat, "_run"),
        (Completions, "_run"),
    ):
        monkeypatch.setattr(kind, name, once(getattr(kind, name)))
    (tmp_path / "worklist").mkdir()
    worklist = WorklistSettings(hl7_port=0, folder=tmp_path / "worklist")
    with Index(tmp_path / "data", worklist=worklist, retention=RetentionSettings(days=1)) as index:
        index.serve()
        # Another thread tells the other nodes of a shared index that this one is served.
        nodes = set() if index._database.is_sqlite else {"node"}
        names = nodes | {"completion", "hl7", "indexer", "publisher", "retention", "settling"}
        names |= {"worklist-folder"}
        assert names == {state.name for state in index.workers.states()}
        assert eventually(lambda: failed == names)
        assert eventually(lambda: all(state.failures == 1 for state in index.workers.states()))
        assert {"failed: RuntimeError"} == {state.summary for state in index.workers.states()}
        assert all(state.is_alive for state in index.workers.states())
