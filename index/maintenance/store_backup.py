"""The commands that back up an index and the store that its nodes share, and restore both."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from index.database.connection import Database
from index.errors import DatabaseFault


def with_store_tools(data: Path, database: Database, target: Path, url: str) -> DatabaseFault:
    """Return a fault whose notes are the commands, the index first: an object is written before its row."""
    folder = quote(str(target))
    dump, restore = _index_commands(quote(str(data.resolve())), database, folder)
    copy, bring_back = _store_commands(url, folder)
    fault = DatabaseFault(
        "storage.url: `backup` copies no store that nodes share. These commands back up index and objects, "
        "beside running daemons; the index first, since an object is written before its row"
    )
    environment = "" if database.is_sqlite else "IMAGINGSTUDYD_INDEX__URL=NEW_URL "
    verify = f"{environment}IMAGINGSTUDYD_STORAGE__URL=NEW_STORE imagingstudyd verify --repair"
    for note in (
        f"    mkdir -p {folder}/store",
        *dump,
        copy,
        "and these restore both, into an empty database, a new store and a new data directory, and prove it:",
        "    mkdir NEW_DATA",
        bring_back,
        *restore,
        f"    {verify} --data NEW_DATA",
        "`verify` names what was deleted between the two copies as missing: delete it again. A store is of",
        "one index only: a restored one needs a copy.",
    ):
        fault.add_note(note)
    return fault


def _index_commands(data: str, database: Database, folder: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return what copies the index, and what brings it back."""
    if database.is_sqlite:
        dump = f"    sqlite3 {data}/index.sqlite '.backup {folder}/index.sqlite'"
        return [dump], [f"    cp {folder}/index.sqlite NEW_DATA/"]
    from index.database.postgresql import connection_string

    connection = quote(connection_string(database.peewee))
    return [
        f"    pg_dump --format=custom --file={folder}/index.dump --dbname={connection}",
        f"    cp {data}/identity {folder}/",
    ], [
        f"    cp {folder}/identity NEW_DATA/",
        f"    pg_restore --exit-on-error --no-owner --dbname=NEW_URL {folder}/index.dump",
    ]


def _store_commands(url: str, folder: str) -> tuple[str, str]:
    """Return what copies the store, and what brings it back."""
    if url.startswith("s3:"):
        return f"    aws s3 sync {quote(url)} s3://BACKUP", "    aws s3 sync s3://BACKUP NEW_STORE"
    place = quote(url.removeprefix("file://"))
    return f"    cp -a --update {place}/. {folder}/store/", f"    cp -a {folder}/store NEW_FOLDER"
