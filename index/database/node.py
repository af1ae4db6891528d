"""Which data directory an index is of, and that one daemon serves from it.

An index that lies elsewhere can be named by two data directories. Each would then give its objects the paths
of the other's, and unlink those. A directory has an identity, in its file `identity`, and the index knows it
from the first daemon on that serves from it. PostgreSQL's advisory lock keeps a second daemon out.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import peewee
import structlog

from index.database.connection import CHANGING, Database
from index.database.tables import Instance, Node
from index.errors import DatabaseFault, ForeignIndex, Locked
from index.storage.durable import open_file, open_new, sync_folder

log = structlog.get_logger(__name__)

# How often a daemon makes sure that the lock is still its own, in seconds.
LOOK_SECONDS = 5.0
# Of these newest instances, one is in the directory that an index is of, though others may just be deleted.
NEWEST = 20
_SIZE = 64
# The first of two keys of PostgreSQL's advisory locks; the second stands for the schema.
SERVING = CHANGING + 1


def is_elsewhere(path: Path | None, data: Path) -> bool:
    """Tell whether an index does not lie in its data directory; None stands for a server's."""
    return path is None or path.resolve() != (data / "index.sqlite").resolve()


def check(database: Database, data: Path) -> None:
    """Raise ForeignIndex where this is the index of another data directory."""
    known = database.rows(Node.select(Node.identity, Node.host, Node.path).order_by(Node.id))
    mine = _identity(data)
    if not known:
        if not _holds_objects(database, data):
            raise ForeignIndex(
                f"index.url: {database.name} is the index of another data directory: its objects are not in"
                f" {data}"
            )
    elif mine not in [identity for identity, _, _ in known]:
        identity, host, path = known[0]
        raise ForeignIndex(
            f"index.url: {database.name} is the index of {path} on {host}, not of {data}: give each data "
            f"directory an index of its own. Where {data} is that directory, restored, write {identity} into "
            "its file identity"
        )


def register(database: Database, data: Path) -> None:
    """Make a data directory that has been checked the one that an index is of.

    Raises DatabaseFault, OSError.
    """
    mine = _identity(data) or _make_identity(data)
    with database.writing():
        database.lock_others_out()
        if not database.rows(Node.select(Node.id).limit(1)):
            row = {"identity": mine, "host": socket.gethostname(), "path": str(data.resolve())}
            database.execute(Node.insert(**row, since=time.time_ns() // 1_000_000))
    check(database, data)


def _holds_objects(database: Database, data: Path) -> bool:
    query = Instance.select(Instance.path, Instance.size).order_by(Instance.id.desc()).limit(NEWEST)
    newest = database.rows(query)
    return not newest or any(_size(data / path) == size for path, size in newest)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _identity(data: Path) -> str:
    """Return what stands in the file `identity`; nothing where there is none. Raises DatabaseFault."""
    path = data / "identity"
    try:
        with open_file(path) as file:
            identity = file.read(_SIZE).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DatabaseFault(f"{path}: cannot be read: {error.strerror}") from error
    if not identity:
        raise DatabaseFault(f"{path}: is empty: restore it from a backup")
    return identity


def _make_identity(data: Path) -> str:
    """Give a data directory an identity, unless another process has just done so."""
    path, temporary = data / "identity", data / f".identity.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        with open_new(temporary) as file:
            file.write(f"{uuid.uuid4().hex}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        if not path.exists():
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(data)
    return _identity(data)


def _single_connection(database: Database) -> peewee.Database:
    """Return one connection to the same PostgreSQL database, not yet open, which all threads may use."""
    from index.database.postgresql import SingleConnection

    same = database.peewee.database, database.peewee.connect_params
    connection: peewee.Database = SingleConnection(same[0], thread_safe=False, autoconnect=False, **same[1])
    return connection


class ServingLock:
    """Held by the one daemon of a PostgreSQL database, on a connection of its own.

    A server that is restarted forgets it: it is then taken again, and where another daemon was faster,
    `on_fatal` is told.
    """

    def __init__(self, database: Database, on_fatal: Callable[[DatabaseFault], None]) -> None:
        self._name = database.name
        self._on_fatal = on_fatal
        self._connection = _single_connection(database)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-lock", daemon=True)

    def take(self) -> None:
        """Take it. Raises Locked where another daemon has it, DatabaseFault where there is no server."""
        try:
            taken = self._try()
        except peewee.PeeweeException as error:
            raise DatabaseFault(f"{self._name}: {error}") from error
        if not taken:
            self._connection.close()
            raise Locked(f"index.url: another daemon serves from {self._name}")
        self._thread.start()

    def release(self) -> None:
        """Let another daemon have it."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._connection.close()

    def _try(self) -> bool:
        self._connection.connect(reuse_if_open=True)
        sql = "SELECT pg_try_advisory_lock(%s, hashtext(current_schema()))"
        return bool(self._connection.execute_sql(sql, (SERVING,)).fetchone()[0])

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception:  # no server: nothing is written either
                log.exception("index_lock_unknown")
                self._connection.close()

    def _look(self) -> None:
        if not self._connection.is_closed():
            self._connection.execute_sql("SELECT 1")
        elif not self._try():
            self._on_fatal(DatabaseFault(f"index.url: another daemon serves from {self._name} now"))
            self._stopping.set()
