"""File descriptors: each part of the daemon has its share, so that none can take those of another.

Where they run out, accept(2) fails for whoever comes (EMFILE), and so does opening a file for an object.
"""

import resource
from dataclasses import dataclass

# More than a daemon ever needs; some containers have a hard limit of 2^30, which costs kernels memory.
MOST = 65536
# What POSIX systems give a process that asks for nothing.
USUAL = 1024
# An association: its socket, its wake-up descriptor, the object's file, and one more while that is closed.
ASSOCIATION = 4
# Database, journal, log, the publisher's files, HL7 feeds (32) and callers that wait for a rejection (64).
OWN = 192
# HTTP connections at one time: an eighth of all, within these bounds.
HTTP_LEAST, HTTP_MOST = 4, 128
_HTTP_PART = 8


@dataclass(frozen=True, slots=True)
class Shares:
    """How many descriptors there are, how many HTTP may take, and for how many associations that leaves."""

    total: int
    http: int
    associations: int


def raise_limit() -> int:
    """Take as many descriptors as the system gives without privileges; return their number."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it: what is there has to do
        pass
    return limit()


def limit() -> int:
    """Return how many descriptors this process may have."""
    try:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        return USUAL
    return MOST if soft == resource.RLIM_INFINITY else soft


def shares(total: int) -> Shares:
    """Divide descriptors. Where there are few of them, associations get half: reception goes before all."""
    http = min(max(total // _HTTP_PART, HTTP_LEAST), HTTP_MOST)
    associations = max((total - OWN - http) // ASSOCIATION, total // 2 // ASSOCIATION, 1)
    return Shares(total, http, associations)
