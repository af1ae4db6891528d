"""The index of a configuration, for the daemon and for commands."""

from typing import Any

from index import Index
from scp.settings.sections import Configuration


def open_index(configuration: Configuration, **options: Any) -> Index:
    """Open the index of this configuration; `options` are those of `Index`. Raises OSError, DatabaseFault."""
    if configuration.audit.address and "observer" not in options:
        from scp.daemon.audit import audit_source
        from scp.observing.audit.command import CommandAudit, CommandTrail

        trail = CommandTrail(configuration.audit, audit_source(configuration))
        options["observer"] = CommandAudit(trail)
    index = Index(
        configuration.data,
        configuration.storage,
        configuration.index,
        configuration.fhir,
        configuration.publish,
        configuration.worklist,
        object_size=configuration.limits.object_size,
        retention=configuration.retention,
        routes=configuration.routes,
        **options,
    )
    index.completions.notifications.use(peer.aet for peer in configuration.peers if peer.notify)
    index.subscriptions.allow(configuration.http.subscriptions)
    return index
