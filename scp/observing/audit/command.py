"""The audit trail of a command beside the daemon: what it deletes is told at once, by itself."""

import getpass
import socket

import structlog

from index import Actor, Observer
from scp.observing.audit.events import deleted as events_of
from scp.observing.audit.messages import Source, message
from scp.observing.audit.syslog import Syslog, TooLong, syslog_message
from scp.settings.audit import AuditSettings

log = structlog.get_logger(__name__)


class CommandAudit(Observer):
    """Tells the syslog server what a command deletes. Where it does not answer, the command goes on."""

    def __init__(self, settings: AuditSettings, source: Source) -> None:
        self._settings = settings
        self._source = source

    def deleted(self, level: str, studies: tuple[str, ...], patient_id: str) -> None:
        """See index.Observer."""
        if (address := self._settings.address) is None:
            return
        syslog = Syslog(self._settings, address)
        try:
            for event in events_of(self._source, level, studies, patient_id, user()):
                syslog.send(syslog_message(message(event, self._source), event.at, is_failure=False))
        except (OSError, TooLong) as error:
            log.warning("audit_not_sent", reason=str(error))
        finally:
            syslog.close()


def user() -> Actor:
    """Return who runs this process (PS3.15 Section A.5.2.1: loginName@domain-name)."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "unknown"
    return Actor(f"{name}@{socket.gethostname()}")
