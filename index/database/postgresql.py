"""PostgreSQL by psycopg, which peewee is kept from importing (`index/database/__init__.py`)."""

from typing import Any

import psycopg
from peewee import Psycopg3Adapter
from playhouse.postgres_ext import PooledPsycopg3Database, Psycopg3Database
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.json import Json, Jsonb

# A server that has vanished is noticed within 30 seconds, as a modality waits: libpq, connection parameters.
CONNECTING = {
    "connect_timeout": 5,  # seconds for each host of the URL
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds until sent bytes are acknowledged
}


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
        return psycopg.connect(dbname=db.database, **{**CONNECTING, **params})


class SingleConnection(Psycopg3Database):  # type: ignore[misc]  # playhouse has no stubs
    """One connection."""

    psycopg2_adapter = psycopg3_adapter = _Adapter


class ConnectionPool(PooledPsycopg3Database):  # type: ignore[misc]
    """A pool of connections."""

    psycopg2_adapter = psycopg3_adapter = _Adapter


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
