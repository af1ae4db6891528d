"""The long-running threads of a daemon: restarted after a fault, and observed.

A thread that ends unnoticed leaves its work undone while the daemon goes on. Here each thread has a name, by
which health, metrics and the watchdog of the service manager report it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

# Seconds from a fault to the next try: twice as long each time, up to LONGEST_PAUSE.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# Seconds without a fault after which the last fault is over.
RECOVERED_SECONDS = 60.0
# Seconds without a sign of life after which a working thread hangs. To publish a study of 100,000 instances
# takes less, and so do time-outs of networks and of SQLite's lock.
HANGING_SECONDS = 120.0
# Seconds without a sign of life after which only a restart of the daemon helps.
LOST_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The state of a thread.

    `fault`: the type of the last fault, until it is over. `silent`: seconds without a sign of life.
    `needs_restart`: only a restart of the daemon helps.
    """

    name: str
    is_alive: bool
    failures: int
    fault: str
    silent: float
    needs_restart: bool

    @property
    def summary(self) -> str:
        """The state in a few words: `ok`, or the fault."""
        if not self.is_alive:
            return "has ended"
        if self.silent > HANGING_SECONDS:
            return f"no sign of life for {self.silent:.0f} s"
        return f"failed: {self.fault}" if self.fault else "ok"


class Worker:
    """One thread that calls `run` until it is stopped, again after each fault.

    `run` returns when `stopping` is set, and calls `waiting` or `rest` when it has nothing to do. `depends`:
    it waits for other systems (a share, another machine), so that a restart of the daemon does not help.
    """

    def __init__(self, name: str, run: Callable[[], None], *, depends: bool = False) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._run = run
        self._depends = depends
        self._failures = 0
        self._fault = ""
        # When the fault is over, and since when the thread has been working; on the monotonic clock.
        self._until: float | None = None
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    @property
    def is_started(self) -> bool:
        """Whether it has been started; it may have ended since."""
        return self._thread.ident is not None

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and has not ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where the system allows no more threads."""
        self.beat()
        self._thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """Set `stopping` and wait for the end. If it waits for something else, its owner has to wake it."""
        self.stopping.set()
        if self.is_started and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def beat(self) -> None:
        """Give a sign of life: it is working."""
        self._busy_since = time.monotonic()

    def rest(self) -> None:
        """Report that it has nothing to do now."""
        self._busy_since = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which it has nothing to do, or waits for an unknown time."""
        self.rest()
        try:
            yield
        finally:
            self.beat()

    def wait(self, seconds: float) -> bool:
        """Rest for so long, or until it has to stop; return whether it has to stop."""
        with self.waiting():
            return self.stopping.wait(seconds)

    def failed(self, error: BaseException) -> None:
        """Record a fault after which it goes on by itself. The next `done` ends the fault."""
        self._failures += 1
        self._fault, self._until = type(error).__name__, None

    def done(self) -> None:
        """Record that its work was done without a fault."""
        if self._until is None:
            self._fault = ""

    def state(self) -> WorkerState:
        """Return its state."""
        now, since, until = time.monotonic(), self._busy_since, self._until
        is_over = until is not None and now > until
        alive = self._thread.is_alive() or self.stopping.is_set()
        silent = 0.0 if since is None or self.stopping.is_set() else now - since
        lost = not alive or (silent > LOST_SECONDS and not self._depends)
        return WorkerState(
            self.name, alive, self._failures, "" if is_over else self._fault, max(0.0, silent), lost
        )

    def _guarded(self) -> None:
        pause = FIRST_PAUSE
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                self.beat()
                self._run()
                if self.stopping.is_set():
                    return
                raise RuntimeError("it has returned, but was not stopped")  # noqa: TRY301
            except BaseException as error:  # any fault: no other code would handle it
                if time.monotonic() - began > RECOVERED_SECONDS:
                    pause = FIRST_PAUSE
                log.exception("worker_failed", worker=self.name, again_seconds=pause)
                self.failed(error)
                self._until = time.monotonic() + pause + RECOVERED_SECONDS
            self.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


class Supervisor:
    """The workers of one daemon."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def add(self, name: str, run: Callable[[], None], *, depends: bool = False) -> Worker:
        """Return a new worker, not started yet. It replaces one of the same name."""
        worker = self._workers[name] = Worker(name, run, depends=depends)
        return worker

    def states(self) -> list[WorkerState]:
        """Return the states of the workers that have been started."""
        return [worker.state() for worker in self._workers.values() if worker.is_started]

    def lost(self) -> list[str]:
        """Return the names of the workers that only a restart of the daemon helps."""
        return [state.name for state in self.states() if state.needs_restart]
