"""The live part of the page: one snapshot a second for all open pages, sent as server-sent events.

An event is a JSON object of HTML by the id of the element that shows it (WHATWG HTML Section 9.2). The first
of a connection has all elements, later ones those that have changed: so a page that was away is right again.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import anyio.to_thread
import structlog
from anyio import CapacityLimiter

from index.errors import IndexFault
from index.facade import Index
from index.forwarding.listing import OutboxStatus
from index.hooks import State
from index.web.page.live_state import STORED_SECONDS, LiveAssociation, LiveState, Refusal
from index.web.page.rendering import Templates

log = structlog.get_logger(__name__)

# How often a snapshot is taken while a page is open, in seconds.
SNAPSHOT_SECONDS = 1.0
# How often health is asked for, in seconds: its checks wait for threads that may be stuck.
HEALTH_SECONDS = 5.0
# How long a connection is silent at most, in seconds: proxies close silent ones after 30 or 60.
SILENT_SECONDS = 15.0
# Pages open at one time; more are told to come again. Each holds a connection of the HTTP server.
MAX_STREAMS = 24
# After how long a browser connects again, in milliseconds.
RETRY_MS = 2000
# Refusals that are shown.
MAX_REFUSALS = 20

SECTIONS = ("health", "numbers", "associations", "plot", "refusals", "forwarding")


@dataclass(frozen=True, slots=True)
class Rated:
    """An association with its rates in the last second."""

    association: LiveAssociation
    instances_per_second: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How it stands at a moment. `fault`: why the index could not be read, or empty."""

    at: float
    status: str
    checks: Mapping[str, str]
    state: State | None
    fault: str
    associations: Sequence[Rated]
    refusals: Sequence[Refusal]
    stored: Sequence[int]
    forwarding: Sequence[OutboxStatus]

    @property
    def per_second(self) -> float:
        """Instances a second, of the last STORED_SECONDS, or of those before while these have just begun."""
        return max(self.stored[-2:]) / STORED_SECONDS


class Snapshots:
    """Takes snapshots, not more than one a second. Safe to use from many threads."""

    def __init__(self, index: Index, live: LiveState) -> None:
        self._index = index
        self._live = live
        self._lock = threading.Lock()
        self._last: Snapshot | None = None
        self._health: tuple[float, tuple[str, Mapping[str, str]]] | None = None

    def take(self) -> Snapshot:
        """Return the snapshot of this second."""
        with self._lock:
            now = time.monotonic()
            # A little less than a second, so that a beat of one second finds a new one.
            if self._last is None or now - self._last.at >= 0.9 * SNAPSHOT_SECONDS:
                self._last = self._taken(now)
            return self._last

    def _taken(self, now: float) -> Snapshot:
        if self._health is None or now - self._health[0] >= HEALTH_SECONDS:
            self._health = now, self._live.health()
        status, checks = self._health[1]
        state, forwarding, fault = None, list[OutboxStatus](), ""
        try:
            state = self._index.state()
            forwarding = self._index.outbox.listing.status()
        except (IndexFault, OSError) as error:
            fault = str(error)
        return Snapshot(
            now,
            status,
            checks,
            state,
            fault,
            self._rated(now),
            self._live.refusals()[:MAX_REFUSALS],
            self._live.stored(),
            forwarding,
        )

    def _rated(self, now: float) -> list[Rated]:
        before = (
            {one.association.id: one.association for one in self._last.associations} if self._last else {}
        )
        seconds = now - self._last.at if self._last else 0.0
        rated = []
        for one in self._live.associations():
            known = before.get(one.id)
            # Without an earlier snapshot, or one of long ago: the mean since it began.
            past = seconds if known and seconds < 2 * HEALTH_SECONDS else max(one.seconds, 1.0)
            instances, size = (known.instances, known.bytes) if known and past == seconds else (0, 0)
            rated.append(Rated(one, (one.instances - instances) / past, (one.bytes - size) / past))
        return rated


class Broadcast:
    """Sends each snapshot to every open page. Used by the thread of the HTTP server."""

    def __init__(self, snapshots: Snapshots, templates: Templates, live: LiveState) -> None:
        self._snapshots = snapshots
        self._templates = templates
        self._live = live
        # Apart from the threads of all other requests, which may be busy.
        self._threads = CapacityLimiter(1)
        self._streams = 0
        self._sections: dict[str, str] = {}
        self._event = ""
        self._number = 0
        self._next = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether as many pages are open as may be."""
        return self._streams >= MAX_STREAMS

    async def events(self) -> AsyncIterator[str]:
        """Yield the events of one page until the daemon stops."""
        self._streams += 1
        try:
            yield f"retry: {RETRY_MS}\n\n"
            if self._sections:
                yield _event(self._sections)
            number, silent_since = self._number, time.monotonic()
            while not self._live.is_stopping():
                self._task = self._task or asyncio.create_task(self._run())
                async with self._next:
                    await self._next.wait_for(lambda: self._number > number)  # noqa: B023  it is over then
                    event = self._event if self._number == number + 1 else _event(self._sections)
                    number = self._number
                if event or time.monotonic() - silent_since > SILENT_SECONDS:
                    silent_since = time.monotonic()
                    yield event or ":\n\n"
        finally:
            self._streams -= 1

    async def _run(self) -> None:
        """Take a snapshot a second while pages are open."""
        while self._streams and not self._live.is_stopping():
            sections = self._sections
            try:
                self._sections = await anyio.to_thread.run_sync(self._render, limiter=self._threads)
            except Exception:
                log.exception("page_not_rendered")
            changed = {name: html for name, html in self._sections.items() if html != sections.get(name)}
            await self._tell(_event(changed) if changed else "")
            await asyncio.sleep(SNAPSHOT_SECONDS)
        self._task = None
        self._sections = {}
        await self._tell("")

    async def _tell(self, event: str) -> None:
        async with self._next:
            self._event = event
            self._number += 1
            self._next.notify_all()

    def _render(self) -> dict[str, str]:
        snapshot = self._snapshots.take()
        return {name: self._templates.text(f"live/{name}.html", now=snapshot) for name in SECTIONS}


def _event(sections: Mapping[str, str]) -> str:
    return f"data: {json.dumps(sections)}\n\n"
