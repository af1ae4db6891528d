"""The folders of a data directory."""

import os
import subprocess
import sys
from pathlib import Path

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
