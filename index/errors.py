"""The errors of the index. scp/wire/status.py maps them to DIMSE statuses, which the index does not know."""

import errno


class IndexFault(Exception):
    """Base of the errors that the index raises on purpose. The text names the thing and the value."""


class NotKept(IndexFault):
    """The instance cannot be kept now: too little space, an I/O error, a database that is busy."""


class Contention(NotKept):
    """Other processes change the same rows of the database. It may succeed when it is tried again."""


class ClaimLost(Contention):
    """The connection to the database that held a claim was lost: another process may do the work."""


class CommitsLost(NotKept):
    """The database has lost commits that did not wait for its disk. The journal has what was in them."""


class TooLarge(NotKept):
    """The object is larger than the configured limit, in bytes."""


class Unreadable(IndexFault):
    """The data set cannot be read as far as its Study, Series and SOP Instance UIDs."""


class InvalidUID(IndexFault):
    """A required UID is missing, or is not 1 to 64 characters of `[0-9.]`."""


class Disagreement(IndexFault):
    """Command set and data set disagree on the SOP Class or SOP Instance UID."""


class NotFound(IndexFault):
    """The study, instance or resource asked for is not in the index."""


class ChangesPruned(IndexFault):
    """Entries of the change feed behind the number asked for have been deleted: a reader would miss them."""


class NotExpressible(IndexFault):
    """A FHIR version cannot hold this study. The text gives the reason."""


class DatabaseFault(IndexFault):
    """The database cannot be used: damaged, of a newer version, or not reachable. The daemon stops."""


class NewerSchema(DatabaseFault):
    """A newer version of this program wrote the database. It is not changed."""


class ForeignStore(DatabaseFault):
    """The settings name another object store than that of the index."""


class ForeignIndex(DatabaseFault):
    """The index is that of another data directory. It is not changed."""


class Locked(IndexFault):
    """Another process serves from this data directory."""


class CannotListen(OSError):
    """The daemon cannot listen on a configured address, whose keys begin with `section`, such as `http.`."""

    def __init__(self, section: str, host: str, port: int, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.section = section
        self.host = host
        self.port = port

    @property
    def key(self) -> str:
        """The key of the wrong value: the port if it is in use or reserved, else the host."""
        is_port = self.errno in (errno.EADDRINUSE, errno.EACCES)
        return f"{self.section}{'port' if is_port else 'host'}"

    def __str__(self) -> str:
        return f"{self.section}host = {self.host}, {self.section}port = {self.port}: {self.strerror}"
