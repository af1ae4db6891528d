"""Backup beside a running daemon, and what is restored from it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from index import DatabaseFault, Index
from index.database.tables import Instance
from support.daemon import Daemon, cli, eventually
from support.dicom import ROOT, instance, save
from support.filling import STORAGE, files, keep

pytestmark = pytest.mark.sqlite


def fill(index: Index) -> None:
    for study in (1, 2, 3):
        for number in (1, 2):
            keep(index, instance(study, 1, number))
    keep(index, instance(1, 1, 1, StudyDescription="another"))
    index.publish()


@pytest.mark.parametrize("link", [False, True])
def test_what_is_restored_is_what_was(tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    with Index(tmp_path / "data", STORAGE) as index:
        fill(index)
        done = index.backup(tmp_path / "backup", link=link)
        assert (7, 7, []) == (done.objects, done.copied, done.missing)
    before = {name: files(tmp_path / "data" / name) for name in ("fhir", "objects", "conflicts")}
    with Index(tmp_path / "backup", STORAGE) as restored:
        restored.publish()
        assert [] == list(restored.verify(grace=0))
    assert before == {name: files(tmp_path / "backup" / name) for name in before}


def test_later_runs_bring_what_is_new_and_drop_what_is_gone(tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE) as index:
        fill(index)
        index.backup(tmp_path / "backup")
        keep(index, instance(4))
        index.delete(f"{ROOT}.2")
        done = index.backup(tmp_path / "backup")
        assert (6, 1, 2) == (done.objects, done.copied, done.removed)
    with Index(tmp_path / "backup", STORAGE) as restored:
        assert [f"{ROOT}.{study}" for study in (1, 3, 4)] == [study["uid"] for study in restored.studies()]


def test_what_is_deleted_meanwhile_leaves_the_backup_whole(tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE) as index:
        fill(index)
        deleted: list[str] = []

        def delete(_: int) -> None:
            if not deleted:
                deleted.append(index.delete(f"{ROOT}.3").uid)

        done = index.backup(tmp_path / "backup", progress=delete)
        assert (5, []) == (done.objects, done.missing)
    with Index(tmp_path / "backup", STORAGE) as restored:
        restored.publish()
        assert [] == list(restored.verify(grace=0))
        assert 2 == len(restored.studies())


def test_a_lost_object_is_named(tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE) as index:
        fill(index)
        ((path,),) = index._database.rows(Instance.select(Instance.path).limit(1))
        (tmp_path / "data" / path).unlink()
        assert [path] == index.backup(tmp_path / "backup").missing


@pytest.mark.parametrize("target", ["data/backup", "data", "."])
def test_where_a_backup_cannot_be(tmp_path: Path, target: str) -> None:
    with Index(tmp_path / "data", STORAGE) as index, pytest.raises(DatabaseFault, match="cannot be in it"):
        index.backup(tmp_path / target)


def test_backup_and_restore_while_instances_come(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """Every row of the backup has its object, whatever came in between; a daemon serves from it."""
    daemon = start()
    for number in range(1, 301):
        save(instance(1, number % 3, number), tmp_path / "send" / f"{number}.dcm")
    command = ["dcmsend", "+sd", "-aec", "ANY", daemon.host, str(daemon.port), str(tmp_path / "send")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as sender:
        assert eventually(lambda: len(daemon.named("store")) > 20)
        done = cli("backup", str(tmp_path / "backup"), "--data", str(daemon.data))
        assert 0 == done.returncode, done.stderr
        sender.wait(180)
    daemon.stop()
    shutil.copytree(tmp_path / "backup", tmp_path / "restored")
    restored = start(data=tmp_path / "restored")
    (study,) = restored.studies()
    assert 20 < study["instances"] <= 300
    assert eventually(lambda: restored.resource(f"{ROOT}.1", "r5").exists())
    restored.stop()
    verified = cli("verify", "--data", str(tmp_path / "restored"), "--grace", "0")
    assert 0 == verified.returncode, verified.stdout
