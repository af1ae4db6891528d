"""Claims: work that one process at a time does, whichever of the nodes of an index it runs on.

A claim is an advisory lock of a PostgreSQL session (PostgreSQL, Explicit Locking), on a connection of its
own. It ends with the session: that of a process that was killed at once, that of a machine that has vanished
within 30 s. Only one daemon uses an SQLite index: there a claim is always given.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum

import peewee

from index.errors import ClaimLost, NotKept

# Each schema is an index of its own.
_KEY = "hashtextextended(current_schema() || '/' || %s, 0)"


class Work(StrEnum):
    """What can be claimed."""

    # With the row id of the study.
    STUDY = "study"
    # With the node's number where each node keeps its own objects.
    RETENTION = "retention"
    HOUSEKEEPING = "housekeeping"
    # With the AE title of the worklist SCP that is queried.
    UPSTREAM = "upstream"
    # With the row id of the commitment.
    COMMITMENT = "commitment"
    # With the name of the target that is published to.
    TARGET = "target"
    # All notifications of subscriptions.
    SUBSCRIPTIONS = "subscriptions"
    # The outbox of nodes that are silent.
    OUTBOX = "outbox"


class Claim:
    """A claim that was given; `session` is that of the connection at that time."""

    def __init__(self, claims: "Claims", session: int) -> None:
        self._claims = claims
        self._session = session

    def check(self) -> None:
        """Raise ClaimLost where another process may have the claim: before each commit of the work."""
        self._claims.check(self._session)


class Claims:
    """The claims of one process. Safe to use from many threads."""

    def __init__(self, pool: peewee.Database) -> None:
        self._pool = pool
        self._is_sqlite = isinstance(pool, peewee.SqliteDatabase)
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._connection: peewee.Database | None = None
        # Counts the connections: the claims of an earlier one are lost.
        self._session = 0

    @contextmanager
    def claimed(self, work: Work, name: object = "") -> Iterator[Claim | None]:
        """Claim work for the time of a block; None: another process has it, or thread. Raises NotKept."""
        key = f"{work}/{name}"
        with self._lock:
            session = self._take(key)
        if session is None:
            yield None
            return
        try:
            yield Claim(self, session)
        finally:
            with self._lock:
                self._release(key, session)

    def check(self, session: int) -> None:
        """Raise ClaimLost where the claims of this session may be lost."""
        with self._lock:
            if session == self._session:
                try:
                    self._run("SELECT 1")
                except peewee.PeeweeException as error:
                    self._close()
                    raise ClaimLost(f"database: {error}") from error
                return
        raise ClaimLost("database: the connection that held the claim was lost")

    def close(self) -> None:
        """Give up all claims."""
        with self._lock:
            self._close()

    def _take(self, key: str) -> int | None:
        """Take a claim and return its session. A session can take its own lock twice: `_held` says no."""
        if key in self._held:
            return None
        if not self._is_sqlite and not self._try_lock(key):
            return None
        self._held.add(key)
        return self._session

    def _try_lock(self, key: str) -> bool:
        """Try the lock, with a new connection where the server was restarted. Raises NotKept."""
        sql = f"SELECT pg_try_advisory_lock({_KEY})"
        is_new = self._connection is None
        try:
            return self._run(sql, key)
        except peewee.PeeweeException as error:
            self._close()
            if is_new:
                raise NotKept(f"database: {error}") from error
            return self._try_lock(key)

    def _run(self, sql: str, *values: str) -> bool:
        if self._is_sqlite:
            return True
        if self._connection is None:
            from index.database.postgresql import single_connection

            self._connection = single_connection(self._pool)
            self._connection.connect()
        return bool(self._connection.execute_sql(sql, values).fetchone()[0])

    def _release(self, key: str, session: int) -> None:
        if session != self._session:
            return
        self._held.discard(key)
        if self._connection:
            try:
                self._run(f"SELECT pg_advisory_unlock({_KEY})", key)
            except peewee.PeeweeException:  # they end with the connection
                self._close()

    def _close(self) -> None:
        self._session += 1
        self._held.clear()
        if self._connection:
            connection, self._connection = self._connection, None
            connection.close()


class HeldClaims:
    """Claims of one kind of work that a node holds as long as it is there. Safe to use from many threads."""

    def __init__(self, claims: Claims, work: Work) -> None:
        self._claims = claims
        self._work = work
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Claim, ExitStack]] = {}

    def is_held(self, name: str) -> bool:
        """Take one where nobody else has it; return whether it is ours. Raises NotKept."""
        with self._lock:
            if name in self._held:
                claim, stack = self._held[name]
                try:
                    claim.check()
                except ClaimLost:
                    del self._held[name]
                    stack.close()
                else:
                    return True
            stack = ExitStack()
            taken = stack.enter_context(self._claims.claimed(self._work, name))
            if taken is None:
                stack.close()
                return False
            self._held[name] = (taken, stack)
            return True

    def release(self, name: str) -> None:
        """Let other nodes have one."""
        with self._lock:
            if name in self._held:
                _, stack = self._held.pop(name)
                stack.close()
