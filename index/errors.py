"""What can go wrong in the index, as types.

scp/status.py maps each of them to a DIMSE status; the index itself knows none.
"""


class IndexFault(Exception):
    """Base of every error that the index raises on purpose; its text names the thing and the value."""


class NotKept(IndexFault):
    """The instance cannot be kept now: no space, an I/O error, a failed commit, below the watermark."""


class TooLarge(NotKept):
    """The object is larger than the configured limit, in bytes."""


class Unreadable(IndexFault):
    """The data set cannot be read as far as its Study, Series and SOP Instance UIDs."""


class InvalidUID(IndexFault):
    """A UID that must be there is missing, or is not 1 to 64 characters of `[0-9.]`."""


class Disagreement(IndexFault):
    """Command set and data set disagree on the SOP Class or SOP Instance UID."""


class NotFound(IndexFault):
    """What was asked for is not in the index."""


class NotExpressible(IndexFault):
    """The FHIR version asked for cannot hold this study; the text says why."""


class DatabaseFault(IndexFault):
    """The database cannot be used at all: corrupt, of a newer version, unreachable. The daemon stops."""


class NewerSchema(DatabaseFault):
    """The database was written by a newer version of this program; nothing of it is touched."""


class ForeignIndex(DatabaseFault):
    """The index is that of another data directory; nothing of it is touched."""


class Locked(IndexFault):
    """Another process serves from this data directory."""
