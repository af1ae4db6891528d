"""Who may read the files of a data directory, and that nothing is left of what was deleted."""

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from index import FhirSettings, Index, IndexSettings, StorageSettings, reindex
from index.reception import indexer
from index.storage.durable import replace, temporary_of
from index.storage.journal import Journal, encode
from support.daemon import Daemon, cli, eventually
from support.dicom import ROOT, instance, save
from support.faults import copied
from support.filling import keep

STORAGE = StorageSettings(watermark=0)
# In no other instance, and not so short that it could be there by chance.
NAME = "Zappelfuchs^Hyazinth"


def modes(root: Path) -> dict[tuple[str, str], list[str]]:
    """Return the modes of all files and folders below `root`, each with its paths."""
    found = defaultdict(list)
    for path in [root, *root.rglob("*")]:
        try:
            status = path.lstat()
        except FileNotFoundError:  # a temporary file of a daemon that goes on
            continue
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
        found[kind, f"{stat.S_IMODE(status.st_mode):o}"].append(str(path.relative_to(root)))
    return dict(found)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", ["000", "022", "077"])
def test_modes_whatever_the_umask_is(start: Callable[..., Daemon], tmp_path: Path, mask: str) -> None:
    """Small and large objects, conflicts, resources, journal, the index while it is open, and a backup."""
    daemon = start(prefix=("sh", "-c", f'umask {mask}; exec "$@"', "sh"))
    sent = tmp_path / "sent"
    save(instance(number=1), sent / "1.dcm")
    save(instance(number=2, PixelData=bytes(200_000), BitsAllocated=8), sent / "2.dcm")
    assert 0 == daemon.send(sent).returncode
    save(instance(number=1, StudyDescription="Neck"), sent / "1.dcm")
    assert 0 == daemon.send(sent).returncode
    assert eventually(daemon.resource(f"{ROOT}.1", "r5").exists)
    assert 1 == len(list((daemon.data / "conflicts").iterdir()))
    found = modes(daemon.data)
    assert {("folder", "750"), ("file", "640")} == set(found), found
    assert {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "lock", "use.lock"} <= set(
        found["file", "640"]
    )
    with umask(int(mask, 8)):
        assert 0 == cli("backup", str(tmp_path / "backup"), "--data", str(daemon.data)).returncode
    assert {("folder", "750"), ("file", "640")} == set(modes(tmp_path / "backup"))
    daemon.stop()
    with umask(int(mask, 8)):
        assert 0 == cli("reindex", "--data", str(daemon.data)).returncode
    assert {("folder", "750"), ("file", "640")} == set(modes(daemon.data))


def test_modes_without_the_command_line(tmp_path: Path) -> None:
    """The umask of a process that uses the index as a library is its own; modes are ours."""
    with umask(0):
        with Index(tmp_path / "data", STORAGE) as index:
            index.serve()
            keep(index, instance())
            keep(index, instance(StudyDescription="Neck"))
            index._publisher.publish_all()
            index.backup(tmp_path / "backup")
            found = modes(tmp_path / "data")
        reindex(tmp_path / "data", STORAGE, IndexSettings(), FhirSettings())
    assert {("folder", "750"), ("file", "640")} == set(found), found
    for root in ("data", "backup"):
        assert {("folder", "750"), ("file", "640")} == set(modes(tmp_path / root))


def test_what_an_earlier_version_left_open_is_closed(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance())
        index.publish()
    for name in ("objects", "incoming", "conflicts", "fhir"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "index.sqlite").chmod(0o644)
    with Index(tmp_path, STORAGE) as index:
        index.serve()
        others = [path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o007]
    assert [] == others


def holding(root: Path, name: str = NAME) -> list[str]:
    """Return the files that contain a name, or parts of it."""
    parts = [part.encode() for part in name.split("^")]
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and any(part in content(path) for part in parts)
    )


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # gone since it was listed
        return b""


def filled(index: Index) -> None:
    """A patient to be deleted, in every place where a name can be, and one who stays."""
    for number in range(30):
        keep(index, instance(1, 1, number, PatientName=NAME, PatientID="Z1"))
    keep(index, instance(1, 1, 1, PatientName=NAME, PatientID="Z1", StudyDescription="Neck"))
    keep(
        index, instance(1, 2, 1, PatientName=NAME, PatientID="Z1", PixelData=bytes(200_000), BitsAllocated=8)
    )
    for number in range(30):
        keep(index, instance(2, 1, number))


def test_a_clean_stop_leaves_nothing_of_what_was_deleted(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        index.serve()
        filled(index)
        index._publisher.publish_all()
        assert "journal/0" in holding(tmp_path)
        index.delete(f"{ROOT}.1")
    assert [] == holding(tmp_path)
    assert [0, 0] == [(tmp_path / "journal" / name).stat().st_size for name in "01"]


@pytest.mark.parametrize("busy", [False, True])
def test_a_running_daemon_leaves_nothing_of_what_was_deleted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    busy: bool,  # noqa: FBT001
) -> None:
    """Deleted by another process, as the command does it, while more instances come, or none."""
    assert 60 >= 2 * indexer.LOOK_SECONDS
    monkeypatch.setattr(indexer, "LOOK_SECONDS", 0.1)
    with Index(tmp_path, STORAGE) as index:
        index.serve()
        filled(index)
        assert eventually(lambda: not index.state().unpublished)
        with Index(tmp_path, STORAGE) as other:
            other.delete(f"{ROOT}.1")
        numbers = iter(range(1000, 1_000_000))

        def is_gone() -> bool:
            if busy:
                keep(index, instance(3, 1, next(numbers)))
            return not holding(tmp_path)

        assert eventually(is_gone), holding(tmp_path)
        assert {f"{ROOT}.2"} <= {study["uid"] for study in index.studies()}
        assert eventually(lambda: not index.state().unpublished)
        assert [] == [one for one in index.verify(grace=0) if one.kind != "study-unpublished"]


def test_a_crash_leaves_nothing_once_it_is_recovered(tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE) as index:
        index.serve()
        filled(index)
        index.delete(f"{ROOT}.1")
        crashed = copied(tmp_path / "data", tmp_path / "crashed")
    assert holding(crashed)
    with Index(crashed, STORAGE) as index:
        index.serve()
        assert not [path for path in holding(crashed) if path.startswith("journal")]
    assert [] == holding(crashed)


def test_a_resource_goes_with_what_a_crash_left_beside_it(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance(PatientName=NAME))
        index.publish()
        for path in (tmp_path / "fhir").glob("*/*/*.json"):
            temporary_of(path).write_text(NAME)
        index.delete(f"{ROOT}.1")
        index.publish()
    assert [] == holding(tmp_path)


def test_what_has_the_name_of_a_temporary_file_is_replaced(tmp_path: Path) -> None:
    """A FIFO would hold its writer; a link would lead it elsewhere; an old file would give its modes."""
    path, elsewhere = tmp_path / "one.json", tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    for made in (
        lambda: os.mkfifo(temporary_of(path)),
        lambda: temporary_of(path).symlink_to(elsewhere),
        lambda: temporary_of(path).write_text("old"),
    ):
        made()
        replace(path, b"new")
        assert (b"new", 0o640) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    assert "untouched" == elsewhere.read_text()


def test_a_part_of_the_journal_is_wiped_as_far_as_it_was_written(tmp_path: Path) -> None:
    one = Journal(tmp_path)
    one.open()
    body = encode({}, NAME.encode() * 1000, bytes(20))
    one.append(1, [body] * 3)
    size = (tmp_path / "0").stat().st_size
    one.turn()
    one.append(4, [encode({}, b"", bytes(20))])
    one.turn()
    one.append(5, [encode({}, b"short", bytes(20))])
    one.turn()
    one.wipe()
    assert bytes(size) == (tmp_path / "0").read_bytes()
    assert any((tmp_path / "1").read_bytes())
    one.close()
