"""What the page is told by the daemon, which the index does not know: associations, refusals, health."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

# How long one number of `LiveState.stored` counts, in seconds, and how many numbers an hour has.
STORED_SECONDS = 10
STORED_NUMBERS = 360


@dataclass(frozen=True, slots=True)
class LiveAssociation:
    """An association now. `seconds`: since it began; `instances` and `bytes`: what it has stored."""

    id: str
    calling_aet: str
    called_aet: str
    address: str
    seconds: float
    services: tuple[str, ...]
    instances: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was refused. `at` is in milliseconds since 1970, `what` is association or instance."""

    at: int
    what: str
    caller: str
    address: str
    reason: str
    times: int = 1


class LiveState(Protocol):
    """What the daemon knows now. Safe to use from many threads."""

    def associations(self) -> Sequence[LiveAssociation]:
        """Return the associations now, the oldest first."""

    def refusals(self) -> Sequence[Refusal]:
        """Return what was refused last, the newest first."""

    def stored(self) -> Sequence[int]:
        """Return how many instances were stored in each STORED_SECONDS of the last hour, oldest first."""

    def health(self) -> tuple[str, Mapping[str, str]]:
        """Return the status (ok, degraded, unavailable), and what each check found."""

    def is_stopping(self) -> bool:
        """Whether the daemon is about to end."""

    def peers(self) -> Sequence[str]:
        """Return the AE titles of the peers that can be called."""

    def echo(self, peer: str) -> str:
        """Send a C-ECHO to a peer; return what came of it, as a sentence."""

    def reload(self) -> str:
        """Load the configuration again; return what came of it, as a sentence."""


class NothingLive:
    """The state of no daemon: of an index that is looked at without one."""

    def associations(self) -> Sequence[LiveAssociation]:
        """Return none."""
        return ()

    def refusals(self) -> Sequence[Refusal]:
        """Return none."""
        return ()

    def stored(self) -> Sequence[int]:
        """Return none."""
        return (0,) * STORED_NUMBERS

    def health(self) -> tuple[str, Mapping[str, str]]:
        """Return that nobody checks."""
        return "ok", {}

    def is_stopping(self) -> bool:
        """Return that there is nothing to stop."""
        return False

    def peers(self) -> Sequence[str]:
        """Return none."""
        return ()

    def echo(self, peer: str) -> str:
        """Return that nobody is there to send it."""
        return f"{peer} was not called: no daemon runs."

    def reload(self) -> str:
        """Return that nobody is there to load it."""
        return "Nothing was loaded: no daemon runs."
