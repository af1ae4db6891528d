"""File descriptors. Each part of the daemon has its share, so that it cannot take those of another part.

Without a free descriptor accept(2) fails (EMFILE), and so does opening a file for an object.
"""

import resource
from dataclasses import dataclass

# More than a daemon needs; some containers have a hard limit of 2^30, which would cost the kernel memory.
MAX_DESCRIPTORS = 65536
# The usual limit of a process.
DEFAULT_DESCRIPTORS = 1024
# An association: its socket, its wake-up descriptor, the object's file, and one more while that is closed.
PER_ASSOCIATION = 4
# Database, journal, log, the publisher's files, HL7 feeds (32) and callers that wait for a rejection (64).
RESERVED = 192
# HTTP connections at one time: an eighth of all, within these bounds.
HTTP_MIN, HTTP_MAX = 4, 128
_HTTP_PART = 8


@dataclass(frozen=True, slots=True)
class Shares:
    """The number of descriptors, how many HTTP may use, and how many associations the rest is enough for."""

    total: int
    http: int
    associations: int


def raise_limit() -> int:
    """Raise the limit of descriptors as far as an unprivileged process may; return it."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        pass
    return limit()


def limit() -> int:
    """Return how many descriptors this process may have."""
    try:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        return DEFAULT_DESCRIPTORS
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def shares(total: int) -> Shares:
    """Divide descriptors. Where there are few, associations get half: reception is most important."""
    http = min(max(total // _HTTP_PART, HTTP_MIN), HTTP_MAX)
    associations = max((total - RESERVED - http) // PER_ASSOCIATION, total // 2 // PER_ASSOCIATION, 1)
    return Shares(total, http, associations)
