"""Objects, index and resources made to agree: what `verify` does.

Every check reads through its own connections, a page at a time, and looks twice before it calls anything a
fault: it works beside a running daemon. What it mends it mends in short transactions; resources are left to
the publisher.
"""

from index.maintenance.verify.conflicts import check_conflicts
from index.maintenance.verify.context import GRACE_SECONDS, Pace, VerifyContext
from index.maintenance.verify.findings import Finding, Kind
from index.maintenance.verify.verification import verify

__all__ = ["GRACE_SECONDS", "Finding", "Kind", "Pace", "VerifyContext", "check_conflicts", "verify"]
