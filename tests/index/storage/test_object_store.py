"""The folders of a data directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from index.storage.object_store import ObjectStore
from index.storage.object_writer import ObjectWriter
from support.dicom import CT_IMAGE_STORAGE


def arriving(data: Path) -> Path:
    """Begin an object, in this process, that is large enough to have a file; return the file."""
    store = ObjectStore(data)
    incoming = ObjectWriter(store, CT_IMAGE_STORAGE, "1.2.3", "1.2.840.10008.1.2", store.incoming_path)
    incoming.write(bytes(100_000))
    (path,) = (data / "incoming").iterdir()
    return path


def test_what_another_process_is_receiving_is_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from index.storage.object_writer import ObjectWriter\n"
        "from index.storage.object_store import ObjectStore\n"
        "store = ObjectStore(pathlib.Path(sys.argv[1]))\n"
        "incoming = ObjectWriter(store, '1.2', '1.2.3', '1.2.840.10008.1.2', store.incoming_path)\n"
        "incoming.write(bytes(100_000))\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        assert 0 == ObjectStore(tmp_path).sweep()
        other.communicate()
    assert 1 == ObjectStore(tmp_path).sweep()
    assert [] == list((tmp_path / "incoming").iterdir())


def test_a_process_id_that_came_again_keeps_nothing(tmp_path: Path) -> None:
    path = arriving(tmp_path)
    name = path.name.split("-")
    for process in (os.getpid(), os.getppid()):
        path.rename(tmp_path / "incoming" / "-".join([str(process), "17", name[-1]]))
        assert 1 == ObjectStore(tmp_path).sweep()
        path = arriving(tmp_path)


def test_a_file_of_nobody_is_swept(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    (tmp_path / "incoming" / "notes.txt").write_text("?")
    assert 1 == store.sweep()


def test_a_folder_that_changed_later_is_looked_at(tmp_path: Path) -> None:
    """An import files into a folder of its own, while the daemon goes on with an older one."""
    store = ObjectStore(tmp_path)
    paths = [store.reserve(1), *(ObjectStore(tmp_path).reserve(1) for _ in range(3))]
    for at, path in enumerate(paths):
        store.write(path, b"")
        os.utime((tmp_path / path).parent, (at, at))
    assert paths[2:] == list(store.filed_since(paths[3], received=10_000))
    os.utime((tmp_path / paths[0]).parent, (10, 10))
    assert [paths[0], *paths[2:]] == list(store.filed_since(paths[3], received=10_000))


def test_a_missing_folder_is_made_again(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    path, other = store.reserve(1), store.reserve(1)
    (tmp_path / path).parent.rmdir()
    store.write(path, b"content")
    (tmp_path / path).rename(tmp_path / "incoming" / "name")
    (tmp_path / path).parent.rmdir()
    store.move("incoming/name", other)
    assert b"content" == (tmp_path / other).read_bytes()
    with pytest.raises(FileNotFoundError):
        store.move("incoming/name", path)


def test_a_journal_on_another_disk(tmp_path: Path) -> None:
    """Large files are renamed: they are prepared on the disk of the objects."""
    (tmp_path / "data").mkdir()
    store = ObjectStore(tmp_path / "data")
    path = store.take_prepared()
    assert (tmp_path / "data" / path).is_file()
    assert not (tmp_path / "data" / "journal").exists()
