"""The threads that work for a whole daemon: guarded, begun again after a fault, and looked at.

A thread that dies is found by nobody: the daemon stores and answers, and what the thread did is not done any
more. Here each has a name, under which health, metrics and the service manager's watchdog know of it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

# From a fault to the next try, in seconds: twice as long each time, up to the most.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# A thread that has worked for so long since its fault is well again, in seconds.
RECOVERED_SECONDS = 60.0
# Without a sign of life for so long, at work, a thread is said to hang, in seconds. A study of 100,000
# instances is published in less, and so are the time-outs of networks and of SQLite's lock.
HANGING_SECONDS = 120.0
# For so long that only another start of the daemon helps, in seconds.
LOST_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How a thread stands. `fault` names the kind of the last fault, until it is over; `silent` in seconds.

    `restarts` where only another start of the daemon helps it.
    """

    name: str
    is_alive: bool
    failures: int
    fault: str
    silent: float
    restarts: bool

    @property
    def said(self) -> str:
        """In a few words; `ok` where all is well."""
        if not self.is_alive:
            return "has ended"
        if self.silent > HANGING_SECONDS:
            return f"no sign of life for {self.silent:.0f} s"
        return f"failed: {self.fault}" if self.fault else "ok"


class Worker:
    """One thread that runs `run` until it is told to stop, whatever that brings up.

    `run` returns when `stopping` is set; it says by `waiting` or `rest` when it has nothing to do. Where what
    it does hangs on others (a share, another machine), another start of the daemon would not help it:
    `depends`.
    """

    def __init__(self, name: str, run: Callable[[], None], *, depends: bool = False) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._run = run
        self._depends = depends
        self._failures = 0
        self._fault = ""
        # When the fault is over by itself, and since when it has been at work, on the monotonic clock.
        self._until: float | None = None
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    @property
    def is_started(self) -> bool:
        """Whether it has been started; it may have ended since."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin. Raises RuntimeError where there can be no more threads."""
        self.beat()
        self._thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """Let it end, and wait for that. Where it waits for something else, its owner has to wake it."""
        self.stopping.set()
        if self.is_started and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def beat(self) -> None:
        """Give a sign of life: it is at work, and gets on."""
        self._busy_since = time.monotonic()

    def rest(self) -> None:
        """It has nothing to do now."""
        self._busy_since = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """It has nothing to do, or cannot tell how long that takes, within this."""
        self.rest()
        try:
            yield
        finally:
            self.beat()

    def wait(self, seconds: float) -> bool:
        """Rest for so long; return whether it is to stop, which ends the rest at once."""
        with self.waiting():
            return self.stopping.wait(seconds)

    def failed(self, error: BaseException) -> None:
        """Note a fault that it goes on after by itself; it is over with the next `done`."""
        self._failures += 1
        self._fault, self._until = type(error).__name__, None

    def done(self) -> None:
        """Note that its work was done without a fault."""
        if self._until is None:
            self._fault = ""

    def state(self) -> WorkerState:
        """Return how it stands."""
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
                raise RuntimeError("it has returned, though nobody told it to stop")  # noqa: TRY301
            except BaseException as error:  # whatever it is, nobody else would take it up
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
        """Return a worker of this name, not started yet; one of the same name is forgotten."""
        worker = self._workers[name] = Worker(name, run, depends=depends)
        return worker

    def states(self) -> list[WorkerState]:
        """Return how those stand that have been started."""
        return [worker.state() for worker in self._workers.values() if worker.is_started]

    def lost(self) -> list[str]:
        """Return the names of those that only another start of the daemon helps."""
        return [state.name for state in self.states() if state.restarts]
