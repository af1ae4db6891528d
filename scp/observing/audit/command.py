"""The audit trail of a command beside the daemon: what it deletes is told at once, by itself."""

import getpass
import socket
from collections.abc import Iterable

import structlog

from index import Actor, Observer
from scp.observing.audit.codes import Outcome
from scp.observing.audit.events import deleted as deletions
from scp.observing.audit.messages import AuditEvent, Source, message
from scp.observing.audit.syslog import Syslog, TooLong, syslog_message
from scp.observing.audit.trail import Facts, completed
from scp.settings.audit import AuditSettings

log = structlog.get_logger(__name__)


class CommandTrail:
    """Sends audit messages at once. Where the server does not answer, the command goes on."""

    def __init__(self, settings: AuditSettings, source: Source, facts: Facts | None = None) -> None:
        """`facts`: where patients are looked up; None: each event has its own."""
        self.source = source
        self._facts = facts
        self._syslog = Syslog(settings, settings.address) if settings.address else None

    def put_all(self, events: Iterable[AuditEvent]) -> None:
        """Send events."""
        if self._syslog is None:
            return
        try:
            for event in events:
                content = message(completed(event, self._facts) if self._facts else event, self.source)
                failed = event.outcome is not Outcome.SUCCESS
                self._syslog.send(syslog_message(content, event.at, is_failure=failed))
        except (OSError, TooLong) as error:
            log.warning("audit_not_sent", reason=str(error))
        finally:
            self._syslog.close()


class CommandAudit(Observer):
    """Tells the syslog server what a command deletes."""

    def __init__(self, trail: CommandTrail) -> None:
        self._trail = trail

    def deleted(self, level: str, studies: tuple[str, ...], patient_id: str) -> None:
        """See index.Observer."""
        self._trail.put_all(deletions(self._trail.source, level, studies, patient_id, user()))


def user() -> Actor:
    """Return who runs this process (PS3.15 Section A.5.2.1: loginName@domain-name)."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "unknown"
    return Actor(f"{name}@{socket.gethostname()}")
