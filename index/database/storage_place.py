"""In which store the objects of an index are: in that one, and no other, are they looked for."""

import datetime as dt
import uuid
from pathlib import Path

from index.database.connection import Database
from index.database.tables import Conflict, Instance, StoreRow
from index.errors import DatabaseFault, ForeignStore
from index.storage.object_store import ObjectStore
from index.storage.remote.store import RemoteStore


def check_place(database: Database, objects: ObjectStore) -> None:
    """Raise ForeignStore where the settings name another store than that of the index.

    The first time a store is named, it is made the index's own. Raises DatabaseFault where it does not answer
    then.
    """
    try:
        _check(database, objects)
    except OSError as error:
        raise DatabaseFault(f"storage.url: {objects.url}: {error.strerror or error}") from error


def _check(database: Database, objects: ObjectStore) -> None:
    known = database.rows(StoreRow.select(StoreRow.url, StoreRow.identity))
    url, identity = known[0] if known else ("", "")
    if url == objects.url:
        return
    if objects.url.startswith("file:"):
        folder = Path(objects.url.removeprefix("file://")).resolve()
        if folder.is_relative_to(objects.data.resolve()) or objects.data.resolve().is_relative_to(folder):
            raise ForeignStore(f"storage.url: {objects.url} and the data directory {objects.data} overlap")
    if not isinstance(objects, RemoteStore):
        raise ForeignStore(
            f"storage.url is not set, and the objects of this index are in {url}: set it again, or move them"
            " by `imagingstudyd migrate-storage`"
        )
    if not known:
        _take(database, objects)
    elif objects.identity() != identity:
        raise ForeignStore(
            f"storage.url: the objects of this index are in {url}, not in {objects.url}, whose object"
            " `identity` is another one, or missing: set it back, or move them by `imagingstudyd"
            " migrate-storage`"
        )
    elif not database.is_read_only:  # the store has moved, or has another name
        with database.writing():
            database.execute(StoreRow.update(url=objects.url))


def _take(database: Database, objects: RemoteStore) -> None:
    """Make a store the index's own."""
    if database.is_read_only:
        raise ForeignStore(f"storage.url: {objects.url} is to become the store of this index: see `serve`")
    with database.writing():
        database.lock_schema()
        if database.rows(StoreRow.select(StoreRow.id)):  # another node was quicker
            return
        if any(database.rows(table.select(table.id).limit(1)) for table in (Instance, Conflict)):
            raise ForeignStore(
                f"storage.url: the objects of this index are in {objects.data}, not in {objects.url}: move"
                " them by `imagingstudyd migrate-storage`, or take the setting away"
            )
        note_place(database, objects.url, claim(objects))


def note_place(database: Database, url: str, identity: str) -> None:
    """Note the store of an index, within a transaction; no URL: the data directory."""
    database.execute(StoreRow.delete())
    if url:
        database.execute(StoreRow.insert(url=url, identity=identity, swept=_today()))


def _today() -> int:
    return int(f"{dt.datetime.now(dt.UTC):%Y%m%d}")


def claim(objects: RemoteStore) -> str:
    """Make a store ours, which holds no objects; return its identity. Raises ForeignStore, OSError."""
    identity = objects.identity()
    if identity and next(objects.remote.listed("objects/"), None):
        raise ForeignStore(
            f"storage.url: {objects.url} is the store of another index. Give this one a prefix of its own, or"
            " make the index anew from that store by `imagingstudyd reindex`"
        )
    if not identity:
        identity = uuid.uuid4().hex
        objects.claim(identity)
    return identity


def adopt(database: Database, objects: ObjectStore) -> None:
    """Note the store of an index that is made anew from it. Raises OSError."""
    if isinstance(objects, RemoteStore):
        with database.writing():
            note_place(database, objects.url, objects.identity() or claim(objects))
