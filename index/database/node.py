"""The data directory of an index, and the lock of the daemon that serves from it.

Two data directories must not share an index: each would use and delete the paths of the other. A data
directory has an identity, in its file `identity`. The first daemon that serves from it writes the identity
into the index. An advisory lock of PostgreSQL keeps a second daemon out.
"""

import os
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import peewee
import structlog

from index.database.connection import SERVING_LOCK, Database
from index.database.mark_changed import now
from index.database.tables import Instance, Node
from index.errors import DatabaseFault, ForeignIndex, Locked
from index.storage.durable import open_file, open_new, sync_folder

log = structlog.get_logger(__name__)

# Seconds between two checks that the daemon still has the lock.
CHECK_SECONDS = 5.0
# One of these newest instances is in the data directory of the index, though some may have been deleted.
NEWEST = 20
_SIZE = 64  # bytes of the file `identity` that are read


def is_elsewhere(path: Path | None, data: Path) -> bool:
    """Whether an index is not in its data directory. The path is None for a database server."""
    return path is None or path.resolve() != (data / "index.sqlite").resolve()


def check_owner(database: Database, data: Path) -> None:
    """Raise ForeignIndex where the index is that of another data directory."""
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
    """Give the index a data directory, if it has none. Raises ForeignIndex, DatabaseFault, OSError."""
    mine = _identity(data) or _make_identity(data)
    with database.writing():
        database.lock_schema()
        if not database.rows(Node.select(Node.id).limit(1)):
            row = {"identity": mine, "host": socket.gethostname(), "path": str(data.resolve())}
            database.execute(Node.insert(**row, since=now()))
    check_owner(database, data)


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
    """Return the content of the file `identity`, or nothing without one. Raises DatabaseFault."""
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
    """Write the file `identity`, unless another process has just done so; return its content."""
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
    """Return one closed connection to the same PostgreSQL database, for all threads."""
    from index.database.postgresql import SingleConnection

    same = database.peewee.database, database.peewee.connect_params
    connection: peewee.Database = SingleConnection(same[0], thread_safe=False, autoconnect=False, **same[1])
    return connection


class Ownership:
    """Which data directory an index belongs to. In its own directory it belongs to that one.

    `index_file` is None for a database server.
    """

    def __init__(self, database: Database, index_file: Path | None, data: Path) -> None:
        self._database = database
        self._data = data
        self._is_elsewhere = is_elsewhere(index_file, data)
        self._lock: ServingLock | None = None

    def check(self) -> None:
        """Raise ForeignIndex where the index is that of another data directory."""
        if self._is_elsewhere:
            check_owner(self._database, self._data)

    def take(self, on_fatal: Callable[[DatabaseFault], None]) -> None:
        """Keep other daemons off an index that is elsewhere. Raises Locked, ForeignIndex, DatabaseFault."""
        if not self._database.is_sqlite:
            self._lock = ServingLock(self._database, on_fatal)
            self._lock.take()
        if self._is_elsewhere:
            register(self._database, self._data)

    def release(self) -> None:
        """Let other daemons have it."""
        if self._lock:
            self._lock.release()


class ServingLock:
    """The lock of the daemon of a PostgreSQL database, on its own connection.

    A restart of the server loses it: it is taken again, and `on_fatal` is called where another daemon has it.
    """

    def __init__(self, database: Database, on_fatal: Callable[[DatabaseFault], None]) -> None:
        self._name = database.name
        self._on_fatal = on_fatal
        self._connection = _single_connection(database)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-lock", daemon=True)

    def take(self) -> None:
        """Take the lock. Raises Locked where another daemon has it, DatabaseFault without a server."""
        try:
            taken = self._try()
        except peewee.PeeweeException as error:
            raise DatabaseFault(f"{self._name}: {error}") from error
        if not taken:
            self._connection.close()
            raise Locked(f"index.url: another daemon serves from {self._name}")
        self._thread.start()

    def release(self) -> None:
        """Release the lock."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._connection.close()

    def _try(self) -> bool:
        self._connection.connect(reuse_if_open=True)
        sql = "SELECT pg_try_advisory_lock(%s, hashtext(current_schema()))"
        return bool(self._connection.execute_sql(sql, (SERVING_LOCK,)).fetchone()[0])

    def _run(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            try:
                self._check_lock()
            except Exception:  # without a server nothing is written either
                log.exception("index_lock_unknown")
                self._connection.close()

    def _check_lock(self) -> None:
        if not self._connection.is_closed():
            self._connection.execute_sql("SELECT 1")
        elif not self._try():
            self._on_fatal(DatabaseFault(f"index.url: another daemon serves from {self._name} now"))
            self._stopping.set()
