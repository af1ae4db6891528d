"""`send`: send stored instances to a peer by C-STORE."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from index import is_uid
from scp.commands.application import (
    FAILED,
    WRONG_USAGE,
    AsJSON,
    Config,
    Data,
    app,
    exit_on_fault,
    load_configuration,
    use_index,
)
from scp.commands.import_files import stop_signals
from scp.commands.output import print_json, print_line, print_message, progress

if TYPE_CHECKING:
    from index import Index, InstanceSelection
    from scp.services.sending import Sender, Sent
    from scp.settings.sections import Configuration


@app.command()
def send(
    uid: Annotated[str, typer.Argument(help="UID of a study, a series or an instance.")],
    peer: Annotated[str, typer.Argument(help="AE title of one of [[peers]].")],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002  typer's way
) -> None:
    """Send a study, series or instance to a peer, as stored. Ends with 1 where an instance failed."""
    from scp.association.client import Unreachable, address_of
    from scp.services.sending import Sender

    configuration = load_configuration(config, data)
    if not is_uid(uid):
        print_message(f"imagingstudyd: {uid} is not a UID")
        raise typer.Exit(WRONG_USAGE)
    try:
        address_of(configuration, peer)
    except Unreachable as error:
        print_message(f"imagingstudyd: {error}")
        raise typer.Exit(WRONG_USAGE) from None
    with use_index(config, data) as index:
        results = _Results()
        with exit_on_fault(), stop_signals() as is_stopped:
            sender = Sender(index.retrieval, lambda: configuration, peer, is_over=is_stopped)
            audit = _Audit(configuration, index, peer.strip())
            try:
                _send(index, uid, sender, results, is_stopped, audit)
            finally:
                sender.close()
                audit.end(results)
    results.print(peer.strip(), as_json=as_json)
    if results.failed or results.missing:
        raise typer.Exit(FAILED)


def _send(
    index: "Index",
    uid: str,
    sender: "Sender",
    results: "_Results",
    is_stopped: Callable[[], bool],
    audit: "_Audit",
) -> None:
    selection = index.retrieval.find_uid(uid)
    results.missing = selection.total
    audit.begin(selection)
    with progress("sending", selection.total, unit="instances") as advance:
        for sent in sender.send_all(selection):
            results.add(sent)
            advance(1)
            if is_stopped():
                return


class _Audit:
    """Tells the audit trail, where there is one, what is sent and what came of it."""

    def __init__(self, configuration: "Configuration", index: "Index", peer: str) -> None:
        self._configuration = configuration
        self._index = index
        self._peer = peer
        self._studies: dict[str, dict[str, int]] = {}

    def begin(self, selection: "InstanceSelection") -> None:
        """These instances are to be sent."""
        if self._configuration.audit.address:
            self._studies = selection.by_study()
            self._put(begins=True)

    def end(self, results: "_Results") -> None:
        """Nothing more is sent."""
        failed = len(results.failed) + results.missing
        self._put(begins=False, why=f"{failed} instances were not sent" if failed else "")

    def _put(self, *, begins: bool, why: str = "") -> None:
        if not self._studies:
            return
        from scp.daemon.audit import audit_source
        from scp.observing.audit import events
        from scp.observing.audit.codes import DESTINATION
        from scp.observing.audit.command import CommandTrail, user
        from scp.observing.audit.messages import Party

        trail = CommandTrail(self._configuration.audit, audit_source(self._configuration), self._index)
        known = self._configuration.find_peer(self._peer)
        to = Party(self._peer, DESTINATION, self._peer, (known and known.host) or "")
        operator = Party(user().name, is_requestor=True)
        outcome = events.outcome_of(failed=bool(why))
        made = events.transfer(
            trail.source, operator, to, self._studies, begins=begins, outcome=outcome, why=why
        )
        trail.put_all(made)


class _Results:
    """What came of the instances. `missing`: those of which nothing is known yet."""

    def __init__(self) -> None:
        self.sent = self.warnings = self.bytes = self.missing = 0
        self.failed: list[tuple[str, str]] = []

    def add(self, sent: "Sent") -> None:
        """Count one."""
        self.missing = max(0, self.missing - 1)
        if sent.is_failed:
            self.failed.append((sent.instance.uid, sent.reason))
            return
        self.sent += 1
        self.warnings += sent.is_warning
        self.bytes += sent.instance.size

    def print(self, peer: str, *, as_json: bool) -> None:
        """Print the counts, and each instance that failed with its reason."""
        if as_json:
            print_json(
                {
                    "peer": peer,
                    "sent": self.sent,
                    "warnings": self.warnings,
                    "bytes": self.bytes,
                    "failed": [{"uid": uid, "reason": reason} for uid, reason in self.failed],
                    "not_tried": self.missing,
                }
            )
            return
        for uid, reason in self.failed:
            print_message(f"failed {uid}: {reason}")
        if self.missing:
            print_message(f"interrupted: {self.missing} instances were not sent")
        warnings = f" ({self.warnings} with a warning)" if self.warnings else ""
        print_line(f"sent {self.sent} instances to {peer}{warnings}, {len(self.failed)} failed")
