"""Objects, index and resources made to agree: what `verify` does.

Every check reads through its own connections, a page at a time, and looks twice before it calls anything a
fault: it works beside a running daemon. What it mends it mends in short transactions; resources are left to
the publisher.
"""

from index.reconcile.conflicts import check_conflicts
from index.reconcile.findings import Finding, Kind
from index.reconcile.verification import verify
from index.reconcile.work import GRACE_SECONDS, Pace, Work

__all__ = ["GRACE_SECONDS", "Finding", "Kind", "Pace", "Work", "check_conflicts", "verify"]
