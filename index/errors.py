"""What can go wrong in the index, as types.

scp/wire/status.py maps each of them to a DIMSE status; the index itself knows none.
"""

import errno


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


class CannotListen(OSError):
    """An address of the configuration cannot be listened on; its keys begin with `section`, as `http.`."""

    def __init__(self, section: str, host: str, port: int, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.section = section
        self.host = host
        self.port = port

    @property
    def key(self) -> str:
        """The key whose value is at fault: the port where it is taken or reserved, else the host."""
        is_port = self.errno in (errno.EADDRINUSE, errno.EACCES)
        return f"{self.section}{'port' if is_port else 'host'}"

    def __str__(self) -> str:
        return f"{self.section}host = {self.host}, {self.section}port = {self.port}: {self.strerror}"
