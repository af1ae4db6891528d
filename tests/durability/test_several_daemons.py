"""Three daemons on one PostgreSQL: what was acknowledged stays, whatever is killed or restarted meanwhile."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peewee import SQL, fn
from pydantic import SecretStr
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from index import Index, IndexSettings
from index.database.tables import Instance, Patient
from support.daemon import Daemon, eventually
from support.dicom import instance
from support.filling import STORAGE
from support.postgresql import restart, server

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


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.long)])
def test_a_daemon_is_killed_and_the_database_restarted(
    count: int, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    with server() as url:
        begin = lambda number: start(data=tmp_path / f"node{number}", IMAGINGSTUDYD_INDEX__URL=url)  # noqa: E731
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
        with Index(tmp_path / "node0", STORAGE, IndexSettings(url=SecretStr(url))) as shared:
            count = Instance.select(fn.COUNT(SQL("*")))
            assert eventually(lambda: [(len(made),)] == shared._database.rows(count))
        for daemon in daemons:
            assert 0 == daemon.stop()
        _judge(url, made, tmp_path)


def _judge(url: str, made: list[Any], tmp_path: Path) -> None:
    with Index(tmp_path / "node0", STORAGE, IndexSettings(url=SecretStr(url))) as shared:
        shared.publish()
        rows = shared._database.rows(Instance.select(Instance.uid, Instance.path))
        assert (len(made), len(made)) == (len(rows), len({path for _, path in rows}))
        assert 2 == len(shared._database.rows(Patient.select(Patient.id)))
        kept = [path for number in range(3) for path in (tmp_path / f"node{number}/objects").rglob("*.dcm")]
        assert len(made) == len(kept)
        with Index(tmp_path / "alone", STORAGE) as alone:
            alone.import_files(kept)
            alone.publish()
            assert by_uid(alone) == by_uid(shared)
            for uid, version in itertools.product(by_uid(alone), ("dstu2", "r4", "r5")):
                assert alone.resource(uid, version)[0] == shared.resource(uid, version)[0]
    assert [] == [found for number in range(3) for found in _findings(tmp_path / f"node{number}", url)]


def by_uid(index: Index) -> dict[str, dict[str, Any]]:
    return {study["uid"]: study for study in index.studies()}


def _findings(data: Path, url: str) -> list[Any]:
    with Index(data, STORAGE, IndexSettings(url=SecretStr(url))) as index:
        return [found for found in index.verify(grace=0) if "resource" not in str(found.kind)]
