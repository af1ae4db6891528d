"""Three daemons on one PostgreSQL: what was acknowledged stays, whatever is killed or restarted meanwhile."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from index import Index, IndexSettings
from index.database.tables import Instance, Patient
from support.daemon import Daemon, eventually
from support.dicom import instance
from support.filling import STORAGE, files, receive
from support.postgresql import create_database, drop_database, restart

SENDERS = 8


class Sender(threading.Thread):
    """Sends its instances to one daemon after the other, each until it is acknowledged."""

    def __init__(self, ports: Callable[[int], int], number: int, datasets: list[Any]) -> None:
        super().__init__(daemon=True)
        self._ports, self._number, self._datasets = ports, number, datasets
        self.acknowledged: list[str] = []

    def run(self) -> None:
        ae = AE("SENDER")
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        turn = self._number
        left = list(self._datasets)
        while left:
            association = ae.associate("127.0.0.1", self._ports(turn))
            turn += 1
            if not association.is_established:
                continue
            for dataset in left[:5]:
                try:
                    status = association.send_c_store(dataset).get("Status")
                except (RuntimeError, ValueError):
                    break
                if status != 0:
                    break
                self.acknowledged.append(str(dataset.SOPInstanceUID))
                left.remove(dataset)
            association.release() if association.is_established else association.abort()


def datasets(count: int) -> list[Any]:
    made = [
        instance(study, series, number)
        for number in range(1, count + 1)
        for study in (1, 2)
        for series in (1, 2)
    ]
    for dataset in made:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


@pytest.fixture
def url(postgresql_server: str) -> Iterator[str]:
    yield create_database(postgresql_server, "several_daemons")
    drop_database(postgresql_server, "several_daemons")


@pytest.mark.parametrize("count", [9, pytest.param(2000, marks=pytest.mark.long)])
def test_a_daemon_is_killed_and_the_database_restarted(
    count: int, start: Callable[..., Daemon], url: str, tmp_path: Path
) -> None:
    """Parts of the same studies go to each daemon; all files and the feed are as of one daemon alone."""

    def begin(number: int) -> Daemon:
        return start(data=tmp_path / f"node{number}", IMAGINGSTUDYD_INDEX__URL=url)

    daemons = [begin(number) for number in range(3)]
    made = datasets(count)
    senders = [
        Sender(lambda turn: daemons[turn % 3].port, number, made[number::SENDERS])
        for number in range(SENDERS)
    ]

    def sent() -> int:
        return sum(len(sender.acknowledged) for sender in senders)

    for sender in senders:
        sender.start()
    assert eventually(lambda: sent() > len(made) // 5)
    daemons[1].kill()
    assert eventually(lambda: sent() > len(made) // 3)
    daemons[1] = begin(1)
    assert eventually(lambda: sent() > len(made) // 2)
    restart(url)
    for sender in senders:
        sender.join(300)
    assert len(made) == sent()
    alone = _alone(made, tmp_path / "alone")
    folders = [daemon.data / "fhir" for daemon in daemons]
    # By themselves, whichever node published what.
    assert eventually(lambda: all(alone == files(folder) for folder in folders))
    for daemon in daemons:
        assert 0 == daemon.stop()
    _judge(url, made, tmp_path)


def _alone(made: list[Any], data: Path) -> dict[str, bytes]:
    """Return the files below `fhir/` of one node that received all."""
    with Index(data, STORAGE) as index:
        for dataset in made:
            receive(index, dataset)
        index.publish()
        return files(data / "fhir")


def _judge(url: str, made: list[Any], tmp_path: Path) -> None:
    with Index(tmp_path / "node0", STORAGE, IndexSettings(url=SecretStr(url))) as shared:
        assert 0 == shared.publish()
        rows = shared._database.rows(Instance.select(Instance.uid, Instance.path))
        assert (len(made), len(made)) == (len(rows), len({path for _, path in rows}))
        assert 2 == len(shared._database.rows(Patient.select(Patient.id)))
        kept = [path for number in range(3) for path in (tmp_path / f"node{number}/objects").rglob("*.dcm")]
        assert len(made) == len(kept)
        with Index(tmp_path / "alone", STORAGE) as alone:
            assert by_uid(alone) == by_uid(shared)
        _judge_feed(shared)
    assert [] == [found for number in range(3) for found in _findings(tmp_path / f"node{number}", url)]


def _judge_feed(shared: Index) -> None:
    """Each version of a resource is told once, in order; the last is the state that it has."""
    versions: dict[tuple[str, str, str], list[int]] = {}
    for entry in shared.changes():
        versions.setdefault((entry.fhir, entry.type, entry.id), []).append(entry.version)
    assert 12 == len(versions)  # two studies and two patients, in three versions
    for key, told in versions.items():
        assert list(range(1, len(told) + 1)) == told
        resource = shared.resources.read(*key)
        assert resource
        assert told[-1] == resource.version


def by_uid(index: Index) -> dict[str, dict[str, Any]]:
    return {study["uid"]: study for study in index.studies()}


def _findings(data: Path, url: str) -> list[Any]:
    with Index(data, STORAGE, IndexSettings(url=SecretStr(url))) as index:
        return list(index.verify(grace=0))
