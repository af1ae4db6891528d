"""All resources as NDJSON files with a manifest, as FHIR Bulk Data Access has them: to load a platform."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import orjson

from index.database.connection import Database
from index.database.tables import Resource
from index.publication.resources import Resources

# Resources that are read at a time.
PAGE = 500
# An entry of `deleted` is a Bundle; with so many entries each.
DELETED = 1000
_PART = ".part"


@dataclass(slots=True)
class Exported:
    """What was written: resources by type, and how many deleted ones are named."""

    counts: dict[str, int] = field(default_factory=dict)
    deleted: int = 0


def export(
    database: Database, resources: Resources, fhir: str, folder: Path, since: datetime | None = None
) -> Exported:
    """Write every resource that has changed since then into a folder; return how many. Raises OSError.

    The files appear under their names when all are complete.
    """
    began = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"*.ndjson{_PART}"):  # of one that was interrupted
        old.unlink()
    after = int(since.timestamp() * 1000) if since else 0
    done, gone = Exported(), []
    with ExitStack() as files:
        opened: dict[str, IO[bytes]] = {}
        for kind, name, is_deleted in _changed(database, fhir, after):
            stored = None if is_deleted else resources.read(fhir, kind, name)
            if stored is None or stored.deleted:
                gone.append((kind, name))
                continue
            if kind not in opened:
                opened[kind] = files.enter_context((folder / f"{kind}.ndjson{_PART}").open("wb"))
            opened[kind].write(stored.content)
            done.counts[kind] = done.counts.get(kind, 0) + 1
    # A first export has nothing to delete.
    if since and gone:
        done.deleted = len(gone)
        (folder / f"deleted.ndjson{_PART}").write_bytes(b"".join(_deletions(gone)))
    for old in folder.glob("*.ndjson"):
        old.unlink()
    for part in folder.glob(f"*.ndjson{_PART}"):
        part.rename(part.with_suffix(""))
    manifest = folder / f"manifest.json{_PART}"
    manifest.write_bytes(_manifest(done, fhir, began, since))
    manifest.rename(folder / "manifest.json")
    return done


def _changed(database: Database, fhir: str, after: int) -> Iterator[tuple[str, str, bool]]:
    last = 0
    query = Resource.select(Resource.id, Resource.type, Resource.name, Resource.deleted)
    which = (Resource.fhir == fhir) & (Resource.changed >= after)
    while rows := database.rows(query.where(which, Resource.id > last).order_by(Resource.id).limit(PAGE)):
        last = rows[-1][0]
        for _, kind, name, deleted in rows:
            yield kind, name, bool(deleted)


def _deletions(gone: list[tuple[str, str]]) -> Iterator[bytes]:
    for start in range(0, len(gone), DELETED):
        entries = [
            {"request": {"method": "DELETE", "url": f"{kind}/{name}"}}
            for kind, name in gone[start : start + DELETED]
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        yield orjson.dumps(bundle, option=orjson.OPT_APPEND_NEWLINE)


def _manifest(done: Exported, fhir: str, began: datetime, since: datetime | None) -> bytes:
    asked = f"$export?_outputFormat=application/fhir+ndjson{f'&_since={since.isoformat()}' if since else ''}"
    deleted = [{"type": "Bundle", "url": "deleted.ndjson", "count": 1 + (done.deleted - 1) // DELETED}]
    manifest = {
        "transactionTime": began.isoformat(timespec="milliseconds"),
        "request": f"{fhir}/{asked}",
        "requiresAccessToken": False,
        "output": [
            {"type": kind, "url": f"{kind}.ndjson", "count": count}
            for kind, count in sorted(done.counts.items())
        ],
        "deleted": deleted if done.deleted else [],
        "error": [],
    }
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
