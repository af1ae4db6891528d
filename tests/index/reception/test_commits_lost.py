"""A database that has lost its last commits, which do not wait for the disk, while the daemon goes on.

PostgreSQL, 28.4 Asynchronous Commit: a crash loses the transactions of the last moments; so does a failover.
"""

from pathlib import Path

import pytest

from index import Index
from index.database.instance_rows import InstanceRows
from index.database.tables import Instance
from index.reception import settling
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import keep, served


def lose(index: Index, number: int, *uids: str) -> None:
    """Take back the commits of these instances, behind record `number`."""
    database, rows = index._database, InstanceRows(index._database)
    with database.writing():
        for uid in uids:
            rows.remove(rows.find([uid])[uid].id)
        index._reception._replay._position.set(number=number)


@pytest.mark.parametrize("more", [True, False])
def test_they_are_made_again_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, more: bool
) -> None:
    """By the next batch or, without one, before their part of the journal is free."""
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 3.0 if more else 1.0)
    monkeypatch.setattr(settling, "RETRY_SECONDS", 0.05)
    with served(tmp_path) as index:
        keep(index, instance(number=1))
        before, _ = index._reception._replay._position.read()
        keep(index, instance(number=2))
        keep(index, instance(number=3))
        lose(index, before, f"{ROOT}.1.1.2", f"{ROOT}.1.1.3")
        if more:
            keep(index, instance(number=4))
        count = 4 if more else 3
        assert eventually(lambda: [count] == [study["instances"] for study in index.studies()])
        assert count == len(index._database.rows(Instance.select(Instance.path).distinct()))
        assert eventually(lambda: index._reception._settling._settled == index._reception._log.last)
        index._publisher.publish_all()
        assert [] == list(index.verify(grace=0))
