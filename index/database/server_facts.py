"""What `check` says of a PostgreSQL server: whether daemons can rely on it."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee

from index.database.connection import MAX_CONNECTIONS, Database
from index.database.node import NodeState, nodes
from index.database.opening import open_unmigrated, sqlite_path
from index.database.settings import IndexSettings
from index.errors import IndexFault

# The oldest server that is tested (server_version_num).
OLDEST = 150_000
# Round trips of which the median is told; with more than SLOW_MS reception waits for the network.
TRIPS = 9
SLOW_MS = 5.0
_SETTINGS = """SELECT current_setting('server_version'), current_setting('server_version_num')::int,
    current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    current_setting('default_transaction_isolation'), current_setting('synchronous_commit'),
    current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery()"""
_REPLICAS = "SELECT application_name, sync_state FROM pg_stat_replication"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Lines about the server, what is to be mended, and why it cannot be used (or empty)."""

    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fault: str = ""


def server_facts(data: Path, settings: IndexSettings) -> ServerFacts:
    """Return what is to be known of the server of an index; nothing for SQLite."""
    url = settings.url.get_secret_value() if settings.url else None
    if sqlite_path(url, data) is not None:
        return ServerFacts()
    database = None
    try:
        database = open_unmigrated(url, data)
        with database.connection():
            return _read(database)
    except (IndexFault, peewee.PeeweeException) as error:
        return ServerFacts(fault=f"index.url: {' '.join(str(error).split())}")
    finally:
        if database:
            database.close()


def _read(database: Database) -> ServerFacts:
    run: Any = database.peewee.execute_sql
    row = run(_SETTINGS).fetchone()
    replicas = run(_REPLICAS).fetchall()
    has_nodes = run("SELECT to_regclass('node')").fetchone()[0]
    known = nodes(database) if has_nodes else []
    seconds = []
    for _ in range(TRIPS):
        began = time.perf_counter()
        run("SELECT 1").fetchone()
        seconds.append(time.perf_counter() - began)
    milliseconds = statistics.median(seconds) * 1000
    version, number, most, reserved, used, isolation, commit, *_ = row
    free = most - reserved - used
    facts = [
        f"index: PostgreSQL {version} answers in {milliseconds:.2f} ms",
        f"index: {free} of {most} connections are free; a daemon uses up to {MAX_CONNECTIONS + 1}",
        f"index: default_transaction_isolation = {isolation}, synchronous_commit = {commit}",
        *(f"index: replica {name} follows, sync_state = {state}" for name, state in replicas),
        *(f"index: node {node.id} {node.place}: {_seen(node)}" for node in known),
    ]
    warnings = [*_of_settings(row), *_of_nodes(known, most - reserved)]
    if number < OLDEST:
        warnings.append(f"index.url: PostgreSQL {version} is older than 15, the oldest that is tested")
    if milliseconds > SLOW_MS:
        warnings.append(f"index.url: the server answers in {milliseconds:.1f} ms, ten times for a batch")
    if replicas and not any(state in ("sync", "quorum") for _, state in replicas):
        warnings.append(
            "index.url: no replica is synchronous (synchronous_standby_names): a failover may lose the last "
            "acknowledged orders and procedure steps; instances are indexed again from their objects"
        )
    return ServerFacts(tuple(facts), tuple(warnings))


def _of_settings(row: tuple[Any, ...]) -> Iterator[str]:
    *_, isolation, commit, fsync, pages, is_replica = row
    if is_replica:
        yield "index.url: the server is a replica, which can only be read: name all hosts in the URL"
    if commit == "off":
        yield "index.url: synchronous_commit = off: a crash of the server may lose acknowledged orders"
    if (fsync, pages) != ("on", "on"):
        yield f"index.url: fsync = {fsync}, full_page_writes = {pages}: a power cut may destroy the database"
    if isolation != "read committed":
        yield f"index.url: default_transaction_isolation = {isolation}: read committed is what is tested"


def _of_nodes(known: list[NodeState], most: int) -> Iterator[str]:
    needed = (MAX_CONNECTIONS + 1) * max(1, sum(not node.is_silent for node in known))
    if most < needed:
        yield f"index.url: daemons may use {needed} connections, max_connections leaves {most}"
    for node in known:
        if node.has_vanished:
            yield f"index.url: node {node.id} {node.place}: {_seen(node)}: its daemon has vanished"


def _seen(node: NodeState) -> str:
    return node.state if node.silent is None else f"{node.state}, last heartbeat {node.silent:.0f} s ago"
