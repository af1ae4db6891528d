"""The audit trail of a daemon, from its start to its stop."""

from index import Index
from scp.observing.audit import events
from scp.observing.audit.command import user
from scp.observing.audit.messages import Source
from scp.observing.audit.trail import AuditTrail
from scp.observing.metrics import Metrics
from scp.settings.sections import Configuration


def audit_source(configuration: Configuration) -> Source:
    """Return who reports."""
    aet = configuration.dicom.aet.strip()
    return Source(configuration.audit.source_id or aet, configuration.audit.site_id, aet)


def start_audit(configuration: Configuration, index: Index, metrics: Metrics) -> AuditTrail | None:
    """Begin the audit trail, where one is configured."""
    if configuration.audit.address is None:
        return None
    audit = AuditTrail(configuration.audit, audit_source(configuration), index, index.workers)
    audit.start()
    audit.put(events.activity(audit.source, user().name, starts=True))
    metrics.use_audit(audit)
    return audit


def stop_audit(audit: AuditTrail) -> None:
    """Tell the trail of the stop, and end it."""
    audit.put(events.activity(audit.source, user().name, starts=False))
    audit.stop()
