"""Load by several associations, and checks that nothing acknowledged is lost or partial."""

import functools
import json
import sqlite3
import threading
from pathlib import Path

from support.daemon import eventually
from support.dicom import data_set_of
from support.sender import SMALL_SIZE, Refused, Template, send, template

ASSOCIATIONS = 4
SUCCESS = 0x0000


class Load:
    """Associations that send new instances, each of its own study, until they fail or are stopped.

    `answers` is every status that came, by SOP Instance UID, in order of arrival.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        first: int = 0,
        count: int = 1_000_000,
        associations: int = ASSOCIATIONS,
        size: int = SMALL_SIZE,
    ) -> None:
        self.templates = [template(size, study) for study in range(1, associations + 1)]
        self.answers: dict[str, int] = {}
        self._numbers = range(first, first + count)
        self._stopping = threading.Event()
        self._answered = threading.Condition()
        self._threads = [
            threading.Thread(target=self._send, args=(address, one), daemon=True) for one in self.templates
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, address: tuple[str, int], source: Template) -> None:
        def answered(number: int, status: int) -> None:
            with self._answered:
                self.answers[source.uid(number)] = status
                self._answered.notify_all()

        numbers = (number for number in self._numbers if not self._stopping.is_set())
        try:
            send(address, source, numbers, answered)
        except (OSError, Refused):
            pass  # the daemon was killed, or stopped: what counts is what it had answered
        finally:
            with self._answered:
                self._answered.notify_all()

    def wait_for(self, answers: int, seconds: float = 300) -> None:
        """Wait until so many instances are answered. Fail where that takes too long."""
        with self._answered:
            assert self._answered.wait_for(lambda: len(self.answers) >= answers, seconds), len(self.answers)

    def end(self, seconds: float = 300) -> None:
        """Wait until every association has ended by itself."""
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive()

    def stop(self) -> None:
        """Let each association finish its instance, and release it."""
        self._stopping.set()
        self.end()

    @property
    def acknowledged(self) -> set[str]:
        """The UIDs that were answered 0x0000."""
        return {uid for uid, status in self.answers.items() if status == SUCCESS}


def data_set(uid: str, size: int = SMALL_SIZE) -> bytes:
    """Return the data set that a Load has sent with this SOP Instance UID."""
    *_, study, _, number = uid.split(".")
    return _template(size, int(study)).data_set(int(number) - 1_000_000_000)


@functools.cache
def _template(size: int, study: int) -> Template:
    return template(size, study)


def lost(data: Path, acknowledged: set[str], size: int = SMALL_SIZE, seconds: float = 60) -> list[str]:
    """Return the acknowledged instances that have no row, or no complete object.

    A daemon that runs has so many seconds to index what it has acknowledged.
    """
    eventually(lambda: not _missing(data, acknowledged, size), seconds)
    return _missing(data, acknowledged, size)


def _missing(data: Path, acknowledged: set[str], size: int) -> list[str]:
    paths = indexed(data)
    return sorted(
        f"{uid}: {'no row' if uid not in paths else 'object is not whole'}"
        for uid in acknowledged
        if uid not in paths or not whole(data / paths[uid], uid, size)
    )


def whole(path: Path, uid: str, size: int = SMALL_SIZE) -> bool:
    """Return whether a file holds the data set that was sent as `uid`, byte for byte."""
    try:
        return data_set_of(path) == data_set(uid, size)
    except (OSError, ValueError, AttributeError, EOFError):
        return False


def indexed(data: Path) -> dict[str, str]:
    """Return the path of each instance in the index, by SOP Instance UID. Fail where the index is damaged."""
    database = sqlite3.connect(data / "index.sqlite")
    try:
        assert [("ok",)] == database.execute("PRAGMA integrity_check").fetchall()
        assert [] == database.execute("PRAGMA foreign_key_check").fetchall()
        return dict(database.execute("SELECT uid, path FROM instance").fetchall())
    finally:
        database.close()


def described(data: Path) -> set[str]:
    """Return the SOP Instance UIDs that the published ImagingStudy resources name."""
    found = set()
    for path in (data / "fhir" / "dstu2" / "ImagingStudy").glob("*.json"):
        for series in json.loads(path.read_bytes()).get("series", []):
            found |= {instance["uid"].removeprefix("urn:oid:") for instance in series["instance"]}
    return found


def leftovers(data: Path) -> list[str]:
    """Return files in `incoming/` and `conflicts/`, and objects without a row.

    Empty files of `incoming/` are names that are ready for what comes next.
    """
    kept = set(indexed(data).values())
    objects = {str(path.relative_to(data)) for path in (data / "objects").rglob("*") if path.is_file()}
    others = [
        path for name in ("incoming", "conflicts") for path in (data / name).rglob("*") if path.is_file()
    ]
    return sorted(objects - kept) + sorted(
        str(path.relative_to(data)) for path in others if path.stat().st_size
    )
