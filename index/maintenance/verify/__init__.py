"""`verify`: objects, index and resources are compared, and repaired.

A check works beside a running daemon: it reads a page at a time, and looks again before it reports a fault.
Repairs are short transactions; the publisher repairs resources.
"""

from index.maintenance.verify.conflicts import check_conflicts
from index.maintenance.verify.context import GRACE_SECONDS, Pace, VerifyContext
from index.maintenance.verify.findings import Finding, Kind
from index.maintenance.verify.verification import verify

__all__ = ["GRACE_SECONDS", "Finding", "Kind", "Pace", "VerifyContext", "check_conflicts", "verify"]
