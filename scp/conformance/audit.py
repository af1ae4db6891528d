"""The audit messages of the statement (PS3.2 Section N.11.2.2, Table N.11-2)."""

from collections.abc import Iterator

from scp.conformance.tables import table
from scp.observing.audit.codes import (
    APPLICATION_ACTIVITY,
    BEGIN_TRANSFERRING,
    INSTANCES_ACCESSED,
    INSTANCES_TRANSFERRED,
    QUERY,
    SECURITY_ALERT,
    STUDY_DELETED,
    USER_AUTHENTICATION,
)
from scp.observing.audit.syslog import MSGID
from scp.observing.audit.trail import MOST
from scp.settings.sections import Configuration

MESSAGES = (
    (APPLICATION_ACTIVITY, "start and stop of the daemon"),
    (BEGIN_TRANSFERRING, "C-MOVE, C-GET, forwarding, send, WADO begin; by study"),
    (
        INSTANCES_TRANSFERRED,
        (
            "came by C-STORE (at the end of the association) or STOW-RS: C, or R where all were here already;"
            " sent by C-MOVE, C-GET, forwarding, send, WADO: R; by study"
        ),
    ),
    (
        INSTANCES_ACCESSED,
        (
            "metadata, frames, bulk data, rendered images, ImagingStudy, or a study's page was read: R, once"
            " a minute for a caller and a study; a series or an instance was deleted: D"
        ),
    ),
    (STUDY_DELETED, "by HTTP, the command delete, or [retention]"),
    (
        QUERY,
        "C-FIND of every service, QIDO-RS, FHIR searches and other reads, change feed, page",
    ),
    (
        SECURITY_ALERT,
        (
            "an association is rejected, HTTP for another host (Node Authentication); HTTP that a caller has"
            " no right to (Use of Restricted Function); a FHIR Subscription is changed (Security"
            " Configuration)"
        ),
    ),
    (USER_AUTHENTICATION, "HTTP of a caller who is not known (Login, failed)"),
)
"""EventID, and what triggers it."""


def audit(configuration: Configuration) -> Iterator[str]:
    """Yield the parts of the section."""
    yield "## Audit trail (PS3.15 Sections A.5 to A.7)"
    if configuration.audit.address is None:
        yield "None: `[audit] syslog` is not set. These messages can be sent:"
    else:
        yield f"These messages are sent to `{configuration.audit.syslog}`:"
    rows = [(code.meaning, f"EV ({code.value}, DCM)", what) for code, what in MESSAGES]
    yield table(("message", "EventID", "when"), rows)
    yield (
        f"RFC 5424 with PRI 85 (failures 84), MSGID {MSGID}, no STRUCTURED-DATA, and a byte order mark; by"
        " TLS (RFC 5425) and TCP with octet counting, or UDP (RFC 5426). UserID is an AE title, the name of"
        f" an HTTP caller, or our process ID, which is PROCID. Patients are named by ID alone. Up to {MOST:,}"
        " messages wait while the server does not answer; further ones are dropped, counted and logged. Not"
        " audited: a C-STORE that fails, MPPS, storage commitment, orders."
    )
