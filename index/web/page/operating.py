"""What an operator has done by a form: each action says what it did, in sentences."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from index.dicom.uids import is_uid
from index.errors import NotFound
from index.facade import Index
from index.forwarding.listing import OutboxFilter
from index.web.page.forms import BadForm
from index.web.page.live_state import LiveState

if TYPE_CHECKING:
    from index.maintenance.verify import Finding

log = structlog.get_logger(__name__)

Fields = Mapping[str, str]

# Findings that are kept for the page; the command `verify` prints all.
MAX_FINDINGS = 200
# How long the answer waits for a verification that is soon done, in seconds.
SOON_SECONDS = 2.0
# What `verify` reads a second at most beside reception, in bytes.
VERIFY_RATE = 50_000_000


@dataclass(frozen=True, slots=True)
class Action:
    """Something that an operator may have done. `question` is asked first; `field` names what is given."""

    name: str
    title: str
    question: str
    button: str
    fields: tuple[str, ...] = ()
    is_grave: bool = False


ACTIONS = {
    one.name: one
    for one in (
        Action(
            "verify",
            "Verify",
            "Every object of this node is read and compared with its row and its resources. That takes a"
            " while; it goes on when this page is closed.",
            "Verify now",
            ("repair",),
        ),
        Action(
            "retry",
            "Send dead letters again",
            "Instances that could not be forwarded are tried again at once.",
            "Send again",
            ("peer", "uid"),
        ),
        Action(
            "accept",
            "Accept a conflict",
            "The data set that is kept aside replaces the one in the index, which is kept aside instead.",
            "Accept it",
            ("path",),
            is_grave=True,
        ),
        Action(
            "delete",
            "Delete",
            "The study, series or instance is deleted with its objects and resources. It cannot be undone.",
            "Delete for good",
            ("uid",),
            is_grave=True,
        ),
        Action(
            "reload",
            "Reload the configuration",
            "The daemon reads its configuration again; where that has a fault, nothing changes.",
            "Reload",
        ),
        Action("echo", "Echo a peer", "The peer is called and sent a C-ECHO.", "Call it", ("peer",)),
    )
}


class Verification:
    """One verification at a time, in a thread of its own."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.findings: list[Finding] = []
        self.total = self.mended = 0
        self.fault = ""

    @property
    def is_running(self) -> bool:
        """Whether one goes on now."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def sentence(self) -> str:
        """How it stands, in a sentence; empty: there was none."""
        if self._thread is None:
            return ""
        if self.fault:
            return f"The verification ended too soon: {self.fault}"
        found = f"{self.total} faults, {self.mended} mended"
        return f"Verifying: {found} so far." if self.is_running else f"Verified: {found}."

    def begin(self, *, repair: bool) -> str:
        """Begin, unless one goes on; return how it stands soon after."""
        with self._lock:
            if self.is_running:
                return f"A verification goes on already. {self.sentence}"
            self.findings, self.total, self.mended, self.fault = [], 0, 0, ""
            thread = threading.Thread(target=self._run, args=(repair,), name="page-verify", daemon=True)
            self._thread = thread
            thread.start()
        thread.join(SOON_SECONDS)
        return self.sentence

    def _run(self, repair: bool) -> None:  # noqa: FBT001
        try:
            for finding in self._index.verify(repair=repair, rate=VERIFY_RATE):
                self.total += 1
                self.mended += finding.mended
                if len(self.findings) < MAX_FINDINGS:
                    self.findings.append(finding)
        except Exception as error:
            log.exception("verify_failed")
            self.fault = f"{type(error).__name__}: {error}"


class Operating:
    """Does what operators ask for. Safe to use from many threads."""

    def __init__(self, index: Index, live: LiveState) -> None:
        self._index = index
        self._live = live
        self.verification = Verification(index)
        self._actions: dict[str, Callable[[Fields], str]] = {
            "verify": lambda fields: self.verification.begin(repair=fields.get("repair") == "yes"),
            "retry": self._retry,
            "accept": self._accept,
            "delete": self._delete,
            "reload": lambda _: live.reload(),
            "echo": self._echo,
        }

    def do(self, action: str, fields: Fields, caller: str) -> str:
        """Do it; return what was done. Raises BadForm, IndexFault, OSError."""
        given = {name: fields.get(name, "") for name in ACTIONS[action].fields}
        done = self._actions[action](given)
        log.info("operated", action=action, caller=caller, **given)
        return done

    def _retry(self, fields: Fields) -> str:
        if fields["uid"]:
            _check_uid(fields["uid"])
        count = self._index.outbox.listing.retry(OutboxFilter(fields["peer"], fields["uid"]))
        return f"{count} instances are tried again." if count else "There was nothing to try again."

    def _accept(self, fields: Fields) -> str:
        uid = self._index.conflicts.accept(fields["path"])
        study, _ = self._index.overview.place(uid)
        return (
            f"Instance {uid} of study {study} now has the data set that was kept aside; the one that it had"
            " is kept aside instead."
        )

    def _delete(self, fields: Fields) -> str:
        _check_uid(fields["uid"])
        deleted = self._index.delete(fields["uid"])
        return f"Deleted {deleted.level} {deleted.uid}: {deleted.instances} instances, {deleted.bytes} bytes."

    def _echo(self, fields: Fields) -> str:
        if fields["peer"] not in self._live.peers():
            raise NotFound(f"{fields['peer']} is none of the peers that have a host and a port in [[peers]]")
        return self._live.echo(fields["peer"])


def _check_uid(text: str) -> None:
    """Raise BadForm for what is no UID."""
    if not is_uid(text):
        raise BadForm(f"{text} is not a UID: 1 to 64 characters of [0-9.]")


class Matching:
    """Matches studies and orders as the commands `match` and `worklist` do."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def match(self, study: str, fields: Fields) -> str:
        """Match a study to an order. Raises BadForm, NotFound."""
        chosen = fields.get("other") or fields.get("order") or ""
        try:
            order = int(chosen) if chosen.isascii() else 0
        except ValueError:
            order = 0
        if not 0 < order < 1 << 62:
            raise BadForm(f"{chosen or 'nothing'} is not the number of an order")
        self._index.orders.set_match(study, order)
        return f"Study {study} is matched to order {order}; the rules no longer decide about it."

    def undo(self, study: str, _: Fields) -> str:
        """Separate a study from its orders. Raises NotFound."""
        self._index.orders.undo_match(study)
        return f"Study {study} has no order now; the rules no longer decide about it."

    def rematch(self, study: str, _: Fields) -> str:
        """Let the rules decide again. Raises NotFound."""
        self._index.orders.rematch(study)
        return f"The rules decide again about study {study}, when it is published next: at once."

    def remove(self, order: int) -> str:
        """Remove an order and every match to it. Raises NotFound."""
        self._index.orders.remove(order)
        return f"Order {order} and every match to it are removed."
