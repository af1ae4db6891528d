"""An instance between its last byte and its row: its facts, its content, its record in the journal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from index.database.instance_rows import StoredObject
from index.records import Origin
from index.storage.journal import EMPTY_SHA1, encode


class Outcome(StrEnum):
    """What became of an instance that is kept."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REPLACED = "replaced"
    CONFLICT = "conflict"
    # The database refuses its row; its object is kept and listed.
    NOT_INDEXED = "not-indexed"


# Outcomes by which an instance has a row.
NEW = (Outcome.STORED, Outcome.REPLACED)


@dataclass(slots=True, eq=False)
class Arrival:
    """An instance on its way into the index.

    `content` is the whole Part 10 file of a small object, whose file is written when it is indexed.
    `incoming` is where its file is now, below the data directory, if that is not its place in `objects/`. One
    that stands there already has neither. `number` is that of its record in the journal; None: it has none.
    """

    stored: StoredObject
    content: bytes | bytearray | None = None
    incoming: str = ""
    # It came before what the index holds under its UID, and replaces nothing.
    recovered: bool = False
    number: int | None = None
    # When its record was synced, on the monotonic clock.
    acknowledged: float = 0.0
    outcome: Outcome | None = None
    # Whether one of the two data sets of a conflict or a replacement is kept in `conflicts/`.
    kept_aside: bool = False
    # Where its data set is kept aside: perhaps in the data directory of another node.
    aside: str = ""
    is_indexed: bool = False
    studies: frozenset[int] = field(default=frozenset())
    error: Exception | None = None

    @property
    def uid(self) -> str:
        """The SOP Instance UID."""
        return self.stored.header.sop_instance_uid

    @property
    def source(self) -> str:
        """Where its file is now, below the data directory; a small one has none before it is placed."""
        return self.incoming or self.stored.path

    def record(self) -> bytes:
        """Return the body of its record: enough to make row and file again, with the object."""
        stored, origin = self.stored, self.stored.origin
        facts: dict[str, object] = {
            "uid": self.uid,
            "path": stored.path,
            "incoming": self.incoming,
            "syntax": stored.transfer_syntax,
            "size": stored.size,
            "sha1": stored.sha1,
            "received": stored.received,
            "origin": [origin.calling_aet, origin.called_aet, origin.address, origin.association],
        }
        return encode(facts, self.content or b"", bytes.fromhex(stored.sha1) if self.content else EMPTY_SHA1)


def origin_of(facts: Mapping[str, Any]) -> Origin:
    """Return the origin that a record tells."""
    return Origin(*facts["origin"])
