"""Nodes: the data directories of an index, and the locks of the daemons that serve from them.

An SQLite index has one node, a PostgreSQL index as many as are wanted. A data directory has an identity, in
its file `identity`; the first daemon that serves from it writes that into the index. Paths tell in which
directory an object is (index/storage/object_keys.py): each node uses and deletes its own objects only.
"""

import contextlib
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee
import structlog

from index.database.connection import SERVING_LOCK, Database
from index.database.mark_changed import now
from index.database.storage_place import check_place
from index.database.tables import Instance, Node, StoreRow
from index.errors import DatabaseFault, ForeignIndex, Locked
from index.storage.durable import open_file, open_new, sync_folder
from index.storage.journal import is_left
from index.storage.object_keys import FIRST, patterns
from index.storage.object_store import ObjectStore
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# Seconds between two signs of life of a node, and two checks that it still has its lock.
CHECK_SECONDS = 5.0
# Seconds without one after which a node is silent: it missed three, so that others take over within 30 s.
SILENT_SECONDS = 20.0
# One of these newest instances is in the data directory of the index, though some may have been deleted.
NEWEST = 20
_SIZE = 64  # bytes of the file `identity` that are read
# What a daemon's connection that holds the lock has ended with it, as `pg_stat_activity` names it.
_OTHERS = "FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid()"
# The first key of a node's lock; the second is its schema and identity.
_NODE_LOCK = 0x4953443F
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"


NODE_STATES = SERVED, SILENT, STOPPED = ("served", "silent", "stopped")
"""What a node is: served by a daemon, by one that has vanished, by none."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as others see it. `silent`: seconds since its last sign of life; None: it is not served."""

    id: int
    host: str
    path: str
    identity: str
    silent: float | None

    @property
    def is_silent(self) -> bool:
        """Whether others may take over its work."""
        return self.silent is None or self.silent > SILENT_SECONDS

    @property
    def has_vanished(self) -> bool:
        """Whether its daemon has stopped without saying so."""
        return self.silent is not None and self.is_silent

    @property
    def state(self) -> str:
        """One of NODE_STATES."""
        return STOPPED if self.silent is None else SILENT if self.is_silent else SERVED

    @property
    def place(self) -> str:
        """Host and path."""
        return f"{self.host}:{self.path}"


def clock(database: Database) -> Any:
    """Return what time it is, in a query: in ms since 1970, by the clock of the database."""
    return peewee.Value(now()) if database.is_sqlite else peewee.SQL(_CLOCK)


def nodes(database: Database) -> list[NodeState]:
    """Return the nodes of an index, the first one first. Times are by the clock of the database."""
    columns = Node.id, Node.host, Node.path, Node.identity, Node.seen, clock(database)
    query = Node.select(*columns).order_by(Node.id)
    return [
        NodeState(row, host, path, identity, (at - seen) / 1000 if seen else None)
        for row, host, path, identity, seen, at in database.rows(query)
    ]


def numbered(database: Database) -> dict[int, NodeState]:
    """Return the nodes by their numbers in the paths of objects."""
    return {node.id if place else FIRST: node for place, node in enumerate(nodes(database))}


def silent_nodes(database: Database) -> frozenset[int]:
    """Return the row ids of the nodes whose work others may take over."""
    return frozenset(node.id for node in nodes(database) if node.is_silent)


def silent_numbers(database: Database) -> frozenset[int]:
    """Return the numbers in paths of the nodes that are not served now; of an index with one node, none."""
    known = numbered(database)
    return frozenset(number for number, node in known.items() if node.is_silent and len(known) > 1)


def place_of(database: Database, number: int) -> str:
    """Return host and path of the node with this number in its paths."""
    found = [node for node in nodes(database) if number in (FIRST, node.id)]
    return found[0].place if found else str(number)


def of_node(column: Any, number: int) -> Any:
    """Return the condition that a path is of the node with this number."""
    like = [peewee.NodeList((column, peewee.SQL("LIKE"), pattern)) for pattern in patterns(number)]
    any_of_them = peewee.EnclosedNodeList([peewee.NodeList((like[0], peewee.SQL("OR"), like[1]))])
    return any_of_them if number else peewee.NodeList((peewee.SQL("NOT"), any_of_them))


def in_scope(column: Any, objects: ObjectStore) -> Any:
    """Return the condition that a path is one of those that the store finds: see ObjectStore.scope."""
    return peewee.SQL("1 = 1") if objects.is_shared else of_node(column, objects.node)


def is_elsewhere(path: Path | None, data: Path) -> bool:
    """Whether an index is not in its data directory. The path is None for a database server."""
    return path is None or path.resolve() != (data / "index.sqlite").resolve()


def check_owner(database: Database, data: Path) -> NodeState | None:
    """Return the node of a data directory; None: the index has none yet. Raises ForeignIndex."""
    known = nodes(database)
    mine = _identity(data)
    if not known:
        if not _holds_objects(database, data):
            raise ForeignIndex(
                f"index.url: {database.name} is the index of another data directory: its objects are not in"
                f" {data}"
            )
        return None
    for node in known:
        if node.identity == mine:
            return node
    here = str(data.resolve())
    likely = next((node for node in known if node.path == here), known[0])
    theirs = ", ".join(f"{one.path} on {one.host}" for one in known)
    raise ForeignIndex(
        f"index.url: {database.name} is the index of {theirs}, not of {data}: to PostgreSQL `serve` adds an "
        "empty directory; else give each data directory an index of its own. Where it is that directory, "
        f"restored, write {likely.identity} into its file identity"
    )


def register(database: Database, data: Path) -> NodeState | None:
    """Give the index a data directory, where it has none, or may have several and this one is empty.

    Raises ForeignIndex, DatabaseFault, OSError.
    """
    mine = _identity(data) or _make_identity(data)
    with database.writing():
        database.lock_schema()
        known = nodes(database)
        is_new = not known and _holds_objects(database, data)
        joins = known and not database.is_sqlite and mine not in [node.identity for node in known]
        if is_new or (joins and is_empty(data)):
            row = {"identity": mine, "host": socket.gethostname(), "path": str(data.resolve())}
            database.execute(Node.insert(**row, since=now()))
    return check_owner(database, data)


def is_empty(data: Path) -> bool:
    """Whether a data directory holds no objects: no other index can be missing it."""
    folders = [data / name for name in ("objects", "conflicts")]
    has_objects = any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
    return not has_objects and not is_left(data / "journal")


def _holds_objects(database: Database, data: Path) -> bool:
    query = Instance.select(Instance.path, Instance.size).order_by(Instance.id.desc()).limit(NEWEST)
    newest = [] if database.rows(StoreRow.select(StoreRow.id)) else database.rows(query)
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


class Ownership:
    """Which node a data directory is in an index. In its own directory an index has no other.

    `index_file` is None for a database server. `node` is its row id; None: it has none (yet).
    """

    def __init__(self, database: Database, index_file: Path | None, objects: ObjectStore) -> None:
        self.node: int | None = None
        self._database = database
        self._objects = objects
        self._data = objects.data
        self._is_elsewhere = is_elsewhere(index_file, objects.data)
        self._lock: ServingLock | None = None
        self._stop: Callable[[], object] = lambda: None

    def check(self, *, joins: bool = False) -> None:
        """Raise ForeignIndex where the index is that of other data directories, ForeignStore, OSError.

        `joins`: `take` may make this one known to it, where it is empty.
        """
        check_place(self._database, self._objects)
        if not self._is_elsewhere:
            return
        try:
            self._is(check_owner(self._database, self._data))
        except ForeignIndex:
            if not joins or self._database.is_sqlite or not is_empty(self._data):
                raise

    def take(self, on_fatal: Callable[[DatabaseFault], None], workers: Supervisor) -> None:
        """Keep other daemons off this node. Raises Locked, ForeignIndex, DatabaseFault."""
        if not self._database.is_sqlite:
            self._lock = ServingLock(self._database, _identity(self._data) or _make_identity(self._data))
            self._lock.take()
        if self._is_elsewhere:
            self._is(register(self._database, self._data))
        if self._lock:
            self._lock.beat()
            self._stop = _Heartbeat(self._lock, on_fatal, workers).start()

    def _is(self, node: NodeState | None) -> None:
        if node:
            first = nodes(self._database)[0]
            self.node = node.id
            self._objects.node = FIRST if node.id == first.id else node.id

    def silent_nodes(self) -> frozenset[int]:
        """Return the row ids of the nodes whose work others may take over."""
        return silent_nodes(self._database)

    def release(self) -> None:
        """Let other daemons have it."""
        self._stop()
        if self._lock:
            self._lock.release()


class ServingLock:
    """The locks of a daemon on PostgreSQL, on a connection of their own; a restart of the server loses them.

    Without an identity it keeps all daemons off the index.
    """

    def __init__(self, database: Database, identity: str = "") -> None:
        from index.database.postgresql import single_connection

        self._name = database.name
        self._identity = identity
        # No other process has this name.
        self._own = f"imagingstudyd {uuid.uuid4().hex}"
        self._connection = single_connection(database.peewee, application_name=self._own)

    def take(self) -> None:
        """Take the lock. Raises Locked where another daemon has it, DatabaseFault without a server."""
        try:
            taken = self.try_to_take()
        except peewee.PeeweeException as error:
            raise DatabaseFault(f"{self._name}: {error}") from error
        if not taken:
            self.release()
            what = " this data directory in" if self._identity else ""
            raise Locked(f"index.url: another daemon serves from{what} {self._name}")

    def try_to_take(self) -> bool:
        """Take it unless it is held; return whether it is taken now. Raises peewee.PeeweeException."""
        self._connection.connect(reuse_if_open=True)
        schema = "hashtext(current_schema())"
        if not self._identity:
            return self._is_true(f"pg_try_advisory_lock(%s, {schema})", SERVING_LOCK)
        return self._is_true(f"pg_try_advisory_lock_shared(%s, {schema})", SERVING_LOCK) and self._is_true(
            "pg_try_advisory_lock(%s, hashtext(current_schema() || %s))", _NODE_LOCK, self._identity
        )

    def _is_true(self, sql: str, *values: Any) -> bool:
        return bool(self._connection.execute_sql(f"SELECT {sql}", values).fetchone()[0])

    def beat(self) -> bool:
        """Give a sign of life; return False where another daemon has the lock now. Raises PeeweeException."""
        if self._connection.is_closed() and not self.try_to_take():
            if not self._end_own():
                return False
            raise peewee.OperationalError("the connection before has the lock still, and is being ended")
        self._seen(_CLOCK)
        return True

    def _end_own(self) -> bool:
        """End connections of ours that only the server takes for alive; return whether there are any."""
        self._connection.connect(reuse_if_open=True)
        ended = f"SELECT pg_terminate_backend(pid) {_OTHERS}"
        return bool(self._connection.execute_sql(ended, (self._own,)).rowcount)

    def _seen(self, when: str) -> None:
        sql = f"UPDATE node SET seen = {when} WHERE identity = %s"  # noqa: S608  one of ours
        self._connection.execute_sql(sql, (self._identity,))

    def lost(self) -> None:
        """The connection has failed: the next `beat` takes the lock again."""
        self._connection.close()

    def release(self) -> None:
        """Release the lock; others know at once that the node is not served."""
        if not self._connection.is_closed():
            with contextlib.suppress(peewee.PeeweeException):
                if self._identity:
                    self._seen("0")
            self._connection.close()


class _Heartbeat:
    """The thread that tells that a node is served. `on_fatal` is called where another daemon serves it."""

    def __init__(
        self, lock: ServingLock, on_fatal: Callable[[DatabaseFault], None], workers: Supervisor
    ) -> None:
        self._lock = lock
        self._on_fatal = on_fatal
        self._worker = workers.add("node", self._run, depends=True)

    def start(self) -> Callable[[], object]:
        """Begin; return what ends it."""
        self._worker.start()
        return self._worker.stop

    def _run(self) -> None:
        while not self._worker.wait(CHECK_SECONDS):
            try:
                if not self._lock.beat():
                    self._on_fatal(DatabaseFault("index.url: another daemon serves from this directory now"))
                    self._worker.stopping.wait()
                    return
            except Exception as error:  # without a server nothing is written either
                log.exception("node_unknown")
                self._worker.failed(error)
                self._lock.lost()
            else:
                self._worker.done()
