"""PostgreSQL by psycopg, which peewee is kept from importing (`index/database/__init__.py`).

The server may be away: restarted, replaced by a replica, or silent. A connection that it has ended is not
used again, a server that hangs is noticed within some ten seconds, and while it is away one thread at a time
tries to reach it: the others are told at once.
"""

import contextlib
import select
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import peewee
import psycopg
from peewee import Psycopg3Adapter
from playhouse.postgres_ext import PooledPsycopg3Database, Psycopg3Database
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.json import Json, Jsonb

T = TypeVar("T")

# Seconds without an answer after which another connection asks what the server does.
SILENT_SECONDS = 5.0
# Seconds between two tries to reach a server that is away.
AGAIN_SECONDS = 0.5
# What a server says of a statement that takes long (PostgreSQL, pg_stat_activity).
_STATE = "SELECT state FROM pg_stat_activity WHERE pid = %s"
_AT_WORK = ("active", "fastpath function call")

_READS = ("SELECT", "(SELECT", "WITH")

# A server that has vanished is noticed within 30 seconds, as a modality waits: libpq, connection parameters.
CONNECTING = {
    "connect_timeout": 5,  # seconds for each host of the URL
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds until sent bytes are acknowledged
}

# What a connection begins with: the number of its process, and the same keepalives at the server (PostgreSQL,
# TCP Settings), since locks of a machine that has vanished must not stay.
FIRST = (
    "SELECT pg_backend_pid(), set_config('tcp_keepalives_idle', '10', false),"
    " set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false)"
)


class _Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever for a server that is silent."""

    # Its process at the server, as statements see it: behind a proxy of connections libpq has another number.
    process: int | None = None
    params: dict[str, Any] = {}  # noqa: RUF012  replaced, never changed

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """See psycopg.Connection; `gen` is also told when nothing has come for a while."""
        return super().wait(_watched(gen, self._is_at_work, self._give_up), *arguments, **options)

    def _is_at_work(self) -> bool:
        """Ask over another connection whether the statement takes long, or its answer will never come."""
        if self.process is None:
            return False
        with contextlib.suppress(psycopg.Error), _Connection.connect(autocommit=True, **self.params) as other:
            found = other.execute(_STATE, (self.process,)).fetchone()
            return found is not None and found[0] in _AT_WORK
        return False

    def _give_up(self) -> None:
        self.pgconn.finish()
        raise psycopg.OperationalError(f"no answer from the server for {SILENT_SECONDS:g} s")


def _watched(
    steps: Generator[Any, Any, T], is_at_work: Callable[[], bool], give_up: Callable[[], None]
) -> Generator[Any, Any, T]:
    """Go through the steps of a statement; ten times a second 0 tells that nothing has come."""
    try:
        wanted = next(steps)
        until = time.monotonic() + SILENT_SECONDS
        while True:
            ready = yield wanted
            if ready:
                until = time.monotonic() + SILENT_SECONDS
            elif time.monotonic() > until:
                if not is_at_work():
                    give_up()
                until = time.monotonic() + SILENT_SECONDS
            wanted = steps.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


class _Adapter(Psycopg3Adapter):
    """peewee's adapter, with the driver."""

    txn_idle = TransactionStatus.IDLE
    txn_inerror = TransactionStatus.INERROR
    txn_unknown = TransactionStatus.UNKNOWN

    def __init__(self) -> None:
        super().__init__()
        self.json_type, self.jsonb_type = Json, Jsonb

    def check_driver(self) -> None:
        """See Psycopg3Adapter; this module has imported it."""

    def get_binary_type(self) -> Any:
        """See Psycopg3Adapter."""
        return psycopg.Binary

    def connect(self, db: Any, **params: Any) -> Any:
        """See Psycopg3Adapter."""
        params = {"dbname": db.database, **CONNECTING, **params}
        if "," in str(params.get("host")):
            # After a failover one of the hosts may be a replica, which only answers reads.
            params.setdefault("target_session_attrs", "read-write")
        connection = _Connection.connect(**params)
        connection.params = params
        connection.process, *_ = connection.execute(FIRST).fetchone() or [None]
        connection.commit()
        return connection


def _without_nul(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


class SingleConnection(Psycopg3Database):  # type: ignore[misc]  # playhouse has no stubs
    """One connection, whose session may hold locks."""

    psycopg2_adapter = psycopg3_adapter = _Adapter


class ConnectionPool(PooledPsycopg3Database):  # type: ignore[misc]
    """A pool of connections.

    `away`: why the server could not be reached at the last try, or empty. `losses`: how many connections the
    server, or what is between, has ended.
    """

    psycopg2_adapter = psycopg3_adapter = _Adapter

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.away, self.losses = "", 0
        self._trying = threading.Lock()
        self._next_try = 0.0
        super().__init__(*arguments, **options)

    def connect(self, reuse_if_open: bool = False) -> Any:  # noqa: FBT001, FBT002  peewee's
        """See peewee.Database. While the server is away, one thread tries to reach it."""
        if not self.away or not self.is_closed():
            return super().connect(reuse_if_open)
        if not self._trying.acquire(blocking=False):
            raise peewee.OperationalError(self.away)
        try:
            return super().connect(reuse_if_open)
        finally:
            self._trying.release()

    def execute_sql(self, sql: str, params: Any = None, **options: Any) -> Any:
        """See peewee.Database. No text here has a NUL: what asks for one asks for what is not there."""
        if params and sql.startswith(_READS):
            params = (
                {name: _without_nul(one) for name, one in params.items()}
                if isinstance(params, dict)
                else [_without_nul(one) for one in params]
            )
        return super().execute_sql(sql, params, **options)

    def _connect(self) -> Any:
        with self._pool_lock:  # peewee.Database.connect holds a lock as well
            away = self.away
            if away and time.monotonic() < self._next_try:
                raise psycopg.OperationalError(away)
            try:
                connection = super()._connect()
            except psycopg.OperationalError as error:
                self.away = str(error).strip() or type(error).__name__
                self._next_try = time.monotonic() + AGAIN_SECONDS
                self.close_idle()
                raise
            self.away = ""
            return connection

    def _is_closed(self, conn: Any) -> bool:
        """Whether the server has ended an idle connection: that can be read, and nothing else ever can.

        peewee asks the server instead, which costs a round trip each time, and takes for ever where it hangs.
        """
        is_idle = not conn.closed and conn.info.transaction_status == TransactionStatus.IDLE
        if is_idle:
            poll = select.poll()
            poll.register(conn.fileno(), select.POLLIN)
            if not poll.poll(0):
                return False
        self.losses += 1
        self._close_raw(conn)
        return True

    def _can_reuse(self, conn: Any) -> bool:
        can = bool(super()._can_reuse(conn))
        if not can:
            self.lost()
        return can

    def lost(self) -> None:
        """A connection was lost, or the server is not the one that writes any more: so may be the others."""
        self.losses += 1
        self.close_idle()


def single_connection(pool: Any, **params: Any) -> SingleConnection:
    """Return one closed connection to the same database, for all threads; `params` are of libpq."""
    params = {**pool.connect_params, **params}
    return SingleConnection(pool.database, thread_safe=False, autoconnect=False, **params)


def connection_string(pool: Any) -> str:
    """Return what psql and pg_dump connect with (libpq, connection strings), without the password."""
    params = {name: value for name, value in pool.connect_params.items() if name != "password"}
    return make_conninfo(dbname=pool.database, **params)


def in_schema(pool: Any, schema: str) -> ConnectionPool:
    """Return a pool of connections to the same database that see the tables of one schema only."""
    name = '"' + schema.replace('"', '""') + '"'
    # Spaces and backslashes are escaped (libpq, `options`).
    path = "".join(f"\\{letter}" if letter in " \\" else letter for letter in name)
    params = {
        **pool.connect_params,
        "options": f"{pool.connect_params.get('options', '')} -c search_path={path}",
    }
    return ConnectionPool(pool.database, **params)
