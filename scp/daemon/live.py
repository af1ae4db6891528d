"""What the daemon tells its page, and does for it: see index.LiveState."""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from time import perf_counter

from index import LiveAssociation, Refusal
from scp.association.client import Unreachable, request_association
from scp.daemon.health import Health
from scp.daemon.listener import Listener
from scp.observing.association_record import AssociationRecord
from scp.observing.recent import Recent
from scp.settings.sections import Configuration

# How long a reload is waited for, in seconds; it reads certificates and looks up no host.
RELOAD_SECONDS = 30.0
# The Verification SOP Class (PS3.4 Annex A).
VERIFICATION = "1.2.840.10008.1.1"


class Reloads:
    """Reloads that are asked for, and what came of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._outcome = ""

    def ask(self) -> str:
        """Have the daemon reload, as SIGHUP does; return what came of it."""
        with self._changed:
            before = self._number
            os.kill(os.getpid(), signal.SIGHUP)
            if self._changed.wait_for(lambda: self._number > before, RELOAD_SECONDS):
                return self._outcome
        return "The configuration is still being loaded; the log will tell what came of it."

    def done(self, outcome: str) -> None:
        """Tell what came of a reload."""
        with self._changed:
            self._number += 1
            self._outcome = outcome
            self._changed.notify_all()


class Live:
    """The state of a running daemon."""

    def __init__(
        self,
        listener: Listener,
        recent: Recent,
        healthy: Callable[[], Health],
        in_force: Callable[[], Configuration],
        reloads: Reloads,
        stopping: threading.Event,
    ) -> None:
        self._listener = listener
        self._recent = recent
        self._healthy = healthy
        self._in_force = in_force
        self._reloads = reloads
        self._stopping = stopping

    def associations(self) -> list[LiveAssociation]:
        """See index.LiveState."""
        return [_association(record) for record in self._listener.records()]

    def refusals(self) -> list[Refusal]:
        """See index.LiveState."""
        return self._recent.refusals()

    def stored(self) -> list[int]:
        """See index.LiveState."""
        return self._recent.stored()

    def health(self) -> tuple[str, Mapping[str, str]]:
        """See index.LiveState."""
        found = self._healthy()
        return found.status, found.checks

    def is_stopping(self) -> bool:
        """See index.LiveState."""
        return self._stopping.is_set()

    def peers(self) -> list[str]:
        """See index.LiveState."""
        return [peer.aet for peer in self._in_force().peers if peer.host and peer.port]

    def echo(self, peer: str) -> str:
        """See index.LiveState."""
        began = perf_counter()
        try:
            with request_association(self._in_force(), peer, VERIFICATION) as association:
                answer = association.send_c_echo()
        except Unreachable as error:
            return f"No echo: {error}."
        status = answer.get("Status")
        if status is None:
            return f"No echo: {peer} does not answer."
        return f"{peer} answers {status:04X} after {1000 * (perf_counter() - began):.0f} ms."

    def reload(self) -> str:
        """See index.LiveState."""
        return self._reloads.ask()


def _association(record: AssociationRecord) -> LiveAssociation:
    titles = (record.info.calling_aet, record.info.called_aet) if record.is_requested else ("", "")
    operations = dict(record.operations)
    return LiveAssociation(
        record.id,
        *titles,
        record.address,
        perf_counter() - record.started,
        tuple(operations),
        operations.get("stores", 0),
        record.bytes,
    )
