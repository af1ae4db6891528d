"""Connections, transactions and compiled statements of an open database."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar

import peewee
import structlog
from playhouse.pool import MaxConnectionsExceeded

from index.database.claims import Claims
from index.database.migrations import scripts, statements
from index.database.watch import ChangeWatch
from index.errors import Contention, DatabaseFault, NewerSchema, NotKept

log = structlog.get_logger(__name__)

OnFatal = Callable[[DatabaseFault], None]
P = ParamSpec("P")
R = TypeVar("R")

# Connections in use at once: readers need them for a short time, and writers wait for each other.
MAX_CONNECTIONS = 64
# Another process (import, delete, worklist) holds the write lock for one commit only.
BUSY_TIMEOUT_SECONDS = 5
# How long emptying the write-ahead log waits for readers, in milliseconds.
EMPTYING_MS = 100
# PRAGMA synchronous by durability. In WAL mode, NORMAL survives a crash of the process.
SYNCHRONOUS = {True: "full", False: "normal"}
_HAS_SCHEMA = "SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'"
# The database is damaged or its disk fails: more writes could make it worse.
_FATAL = frozenset((sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
# PostgreSQL, Appendix A: serialization_failure, deadlock_detected.
_CONTENTION = frozenset(("40001", "40P01"))
# The same: read_only_sql_transaction; the server is a replica, or was replaced by one.
_REPLICA = "25006"
# What tells that the database refuses a statement or its values, and always will.
_REFUSALS = (peewee.IntegrityError, peewee.ProgrammingError, peewee.DataError)
# An I/O error by its primary code, but the disk is only full: there is no room for the -shm file.
_FULL = sqlite3.SQLITE_IOERR_SHMSIZE
# The first of two keys of PostgreSQL advisory locks; the second is the schema.
SCHEMA_LOCK, SERVING_LOCK, FEED_LOCK = range(0x49534431, 0x49534434)
ORDERS_LOCK = 0x4953443A
# How often what contends with another process is tried again, before its sender is told.
TRIES = 3
_LOCK = "SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))"


class Statement:
    """A query that is compiled when it is first run; then it takes a tenth of the time of the ORM."""

    def __init__(self, database: "Database", query: peewee.Query) -> None:
        self._database = database
        self._query = query

    @cached_property
    def _sql(self) -> str:
        sql, constants = self._database.peewee.get_sql_context().sql(self._query).query()
        if constants:
            raise ValueError(f"constants must be written as SQL: {constants!r} in {sql}")
        return str(sql)

    def run(self, **values: Any) -> Any:
        """Execute and return the cursor."""
        return self._database.peewee.execute_sql(self._sql, values)

    def run_many(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute once for each mapping of parameter names to values; return how many rows that changed."""
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]  # its stubs leave it out
            cursor = self._database.peewee.cursor()
            if len(rows) == 1:  # psycopg's way for many takes more round trips
                cursor.execute(self._sql, rows[0])
            else:
                cursor.executemany(self._sql, rows)
            return int(cursor.rowcount)

    def one(self, **values: Any) -> Any:
        """Execute and return the first row, or None."""
        return self._database.peewee.execute_sql(self._sql, values).fetchone()


class Database:
    """Connections, transactions and compiled statements."""

    def __init__(
        self,
        database: peewee.Database,
        types: Mapping[str, str],
        on_fatal: OnFatal = lambda _: None,
        *,
        sync: bool = False,
        read_only: bool = False,
        name: str = "",
    ) -> None:
        self.peewee = database
        self.is_read_only = read_only
        self.name = name or str(database.database)
        # Whether each transaction sets what its commit syncs: SQLite with durability = power-loss.
        self._sync = sync
        # The SQL types of this engine, by the names that migrations use.
        self.types = types
        self.is_sqlite = isinstance(database, peewee.SqliteDatabase)
        self._prepared: dict[Callable[[Callable[[str], peewee.SQL]], peewee.Query], Statement] = {}
        # Writers of this process wait for each other here; SQLite itself would sleep and try again.
        self._write_lock = threading.Lock()
        self._on_fatal = on_fatal
        self._fatal: DatabaseFault | None = None

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Give this thread a connection, if it has none. Raises NotKept or DatabaseFault."""
        try:
            opened = self.peewee.connect(reuse_if_open=True)
            try:
                yield
            finally:
                if opened:
                    self.peewee.close()
        except peewee.PeeweeException as error:
            raise self.translate(error) from error
        except MaxConnectionsExceeded as error:
            raise NotKept(f"database: more than {MAX_CONNECTIONS} threads use it") from error

    @contextmanager
    def writing(self, *, durable: bool = True, at_once: bool = False) -> Iterator[None]:
        """One write transaction, committed or rolled back as a whole. Raises NotKept or DatabaseFault.

        `at_once`: for a single statement, which is a transaction by itself. A transaction that is not
        `durable` survives a crash of the process, and a power cut after a later durable commit. After a fault
        of the database no transaction begins: only the next start can find out what its file holds.
        """
        if self.is_read_only:
            raise NotKept(f"{self.name}: can only be read")
        with self._write_lock:
            if self._fatal:
                raise self._fatal
            with self.connection():
                if self._sync:
                    self.peewee.execute_sql(f"PRAGMA synchronous = {SYNCHRONOUS[durable]}")
                kind = ("IMMEDIATE",) if self.is_sqlite else ()
                with nullcontext() if at_once else self.peewee.atomic(*kind):
                    if not (self.is_sqlite or durable or at_once):
                        self.peewee.execute_sql("SET LOCAL synchronous_commit = off")
                    yield

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """A write transaction that follows from what it reads of orders, patients and procedure steps.

        One of them goes after the other, of all processes: they are few, and find what they change by many
        keys. Raises NotKept or DatabaseFault.
        """
        with self.writing():
            self._lock(ORDERS_LOCK)
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One snapshot for several queries. Raises NotKept or DatabaseFault."""
        with self.connection():
            is_outermost = not self.peewee.in_transaction()
            with self.peewee.atomic():
                if is_outermost and not self.is_sqlite:
                    # Otherwise each statement would see what is committed when it begins.
                    self.peewee.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                yield

    def translate(self, error: peewee.PeeweeException) -> Exception:
        """Return NotKept for a full or busy database. For a damaged one, stop and return DatabaseFault."""
        cause = _cause(error)
        if _primary_code(cause) in _FATAL:
            name = getattr(cause, "sqlite_errorname", "")
            fault = DatabaseFault(f"{self.name}: {cause} ({name})")
            self._stop(fault)
            return fault
        if isinstance(error, _REFUSALS):
            return error
        sqlstate = getattr(cause, "sqlstate", "")
        if sqlstate in _CONTENTION:
            return Contention(f"database: {cause}")
        if sqlstate == _REPLICA:
            self.peewee.lost()  # type: ignore[attr-defined]  # PostgreSQL's pool: see postgresql.py
        return NotKept(f"database: {' '.join(str(cause).split())}")

    @property
    def away(self) -> str:
        """Why the database server cannot be reached now, or empty."""
        return str(getattr(self.peewee, "away", ""))

    @property
    def losses(self) -> int:
        """How many connections were lost; the server after that may be another one, which lacks commits."""
        return int(getattr(self.peewee, "losses", 0))

    def _stop(self, fault: DatabaseFault) -> None:
        if self._fatal is None:
            self._fatal = fault
            log.critical("database_fault", error=str(fault))
            self._on_fatal(fault)

    def compile(self, build: Callable[[Callable[[str], peewee.SQL]], peewee.Query]) -> Statement:
        """Compile the query that `build` makes. Its argument turns a parameter's name into a placeholder."""
        style = ":{}" if self.is_sqlite else "%({})s"
        return Statement(self, build(lambda name: peewee.SQL(style.format(name))))

    def prepared(self, build: Callable[[Callable[[str], peewee.SQL]], peewee.Query]) -> Statement:
        """Return the statement of a module-level function, compiled at its first use."""
        statement = self._prepared.get(build)
        if statement is None:
            statement = self._prepared[build] = self.compile(build)
        return statement

    def rows(self, query: peewee.Query) -> list[tuple[Any, ...]]:
        """Run a query of the ORM; return its rows as tuples, fields decoded."""
        with self.connection():
            return list(query.bind(self.peewee).tuples().iterator())

    def execute(self, query: peewee.Query) -> Any:
        """Run an insert, update or delete of the ORM."""
        return query.bind(self.peewee).execute()

    def migrate(self) -> None:
        """Run the missing migrations. Raises NewerSchema, DatabaseFault."""
        available = scripts(self.is_sqlite)
        with self.connection():
            missing = self._missing(available)
        if missing and self.is_read_only:
            raise DatabaseFault(
                f"{self.name}: is of an older version, and can only be read; `serve` brings it forward"
            )
        if not missing:
            return
        with self.writing():
            self.lock_schema()
            self.peewee.execute_sql("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
            for number in self._missing(available):
                for statement in statements(available[number].format(**self.types)):
                    self.peewee.execute_sql(statement)
                self.peewee.execute_sql(f"INSERT INTO schema_version (version) VALUES ({number})")  # noqa: S608  a number

    def lock_schema(self) -> None:
        """Keep other processes waiting here until this transaction ends, as any SQLite transaction does."""
        self._lock(SCHEMA_LOCK)

    def lock_feed(self) -> None:
        """Keep other processes from writing entries of the change feed until this transaction ends."""
        self._lock(FEED_LOCK)

    def _lock(self, key: int) -> None:
        if not self.is_sqlite:
            self.peewee.execute_sql(_LOCK, (key,))

    def _missing(self, scripts: Mapping[int, str]) -> list[int]:
        """Return the numbers of the missing migrations. Raises NewerSchema."""
        applied: set[int] = set()
        there = _HAS_SCHEMA if self.is_sqlite else "SELECT to_regclass('schema_version')"
        if self.peewee.execute_sql(there).fetchone()[0]:
            rows = self.peewee.execute_sql("SELECT version FROM schema_version").fetchall()
            applied = {version for (version,) in rows}
        if max(applied, default=0) > max(scripts):
            raise NewerSchema(
                f"{self.name}: schema version {max(applied)} is newer than this program's "
                f"{max(scripts)}; install the version that wrote it, or a later one"
            )
        return sorted(set(scripts) - applied)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, durably. Raises NotKept or DatabaseFault.

        After a failed sync of the log, the disk may lack pages that the kernel still shows. A log that went
        on behind such a gap would end there at the next power cut.
        """
        if self.is_sqlite and not self.is_read_only:
            with self.connection():
                self.peewee.execute_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def empty_log(self) -> bool:
        """Move the write-ahead log into the database and empty it; return whether it is empty.

        Deleted values stay in the log until then. Raises NotKept or DatabaseFault.
        """
        with self._write_lock, self.connection():
            self.peewee.execute_sql(f"PRAGMA busy_timeout = {EMPTYING_MS}")
            try:
                busy, _, _ = self.peewee.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self.peewee.execute_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
        return not busy

    @cached_property
    def claims(self) -> Claims:
        """The work that this process has claimed."""
        return Claims(self.peewee)

    def watch(self) -> ChangeWatch:
        """Return what tells whether anything has been committed."""
        return ChangeWatch(str(self.peewee.database) if self.is_sqlite else None)

    def close(self) -> None:
        """Close every connection."""
        self.claims.close()
        self.peewee.close_all()  # type: ignore[attr-defined]  # a pool, always


def tried_again(act: Callable[P, R]) -> Callable[P, R]:
    """Let a function whose transactions contend with others be called again, up to TRIES times."""

    @wraps(act)
    def acting(*arguments: P.args, **options: P.kwargs) -> R:
        for _ in range(TRIES):
            with suppress(Contention):
                return act(*arguments, **options)
        return act(*arguments, **options)

    return acting


def _primary_code(error: BaseException) -> int:
    """Return SQLite's primary result code; 0 where the error is not SQLite's."""
    code = int(getattr(error, "sqlite_errorcode", 0))
    return sqlite3.SQLITE_FULL if code == _FULL else code & 0xFF


def _cause(error: BaseException) -> BaseException:
    """Return the first error of the driver: after a failed commit, peewee's rollback fails as well."""
    chain = [error]
    while context := chain[-1].__context__:
        chain.append(context)
    codes = {one: _primary_code(one) for one in chain}
    fatal = [one for one in chain if codes[one] in _FATAL]
    telling = [one for one in chain if codes[one] not in (0, sqlite3.SQLITE_ERROR)]
    last = getattr(error, "orig", error)
    if getattr(last, "sqlstate", "") is None:  # PostgreSQL's driver found the connection lost
        telling = [one for one in reversed(chain) if hasattr(one, "sqlstate")]
    return next(iter(fatal or telling), last)
