"""Entries of a data directory that are not files of ours: logged and passed over, never a hang or a refusal.

Opening a FIFO blocks until it has a writer (fifo(7)): a test would end by its timeout.
"""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from index import DatabaseFault, FhirSettings, Index, IndexSettings, Locked, StorageSettings, reindex
from index.orders.dicom import BadItem, read_file
from support.daemon import Daemon, cli, run
from support.dicom import ROOT, instance, save
from support.faults import on_small_disk
from support.filling import keep

STORAGE = StorageSettings(watermark=0)
MEGABYTE = 1 << 20


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path)


def to_fifo(path: Path) -> None:
    fifo(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


def bound(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


ODD = pytest.mark.parametrize("odd", [fifo, folder, dangling, loop, to_fifo, bound])
Odd = Callable[[Path], None]


def filled(data: Path, count: int = 3) -> None:
    with Index(data, STORAGE) as index:
        index.serve()
        for number in range(1, count + 1):
            keep(index, instance(number=number))
        index._publisher.publish_all()


def passed_over(logs: list[dict[str, object]]) -> list[object]:
    return [entry["path"] for entry in logs if entry["event"] == "passed_over"]


@ODD
def test_beside_objects(tmp_path: Path, odd: Odd) -> None:
    filled(tmp_path)
    odd(tmp_path / "objects/000000/fff.dcm")
    with capture_logs() as logs, Index(tmp_path, STORAGE) as index:
        index.serve()
        assert ["objects/000000/fff.dcm"] == passed_over(logs)
        keep(index, instance(number=9))
        index._publisher.publish_all()
        found = [(one.kind, one.path, one.detail) for one in index.verify(grace=0)]
        assert [("object-without-row", "objects/000000/fff.dcm", "is not a file, left alone")] == found
    assert 4 == reindex(tmp_path, STORAGE, IndexSettings(), FhirSettings()).instances


@ODD
def test_in_the_place_of_an_object(tmp_path: Path, odd: Odd) -> None:
    """The object is lost, and named. Everything else goes on, also its deletion."""
    data = tmp_path / "data"
    filled(data)
    path = data / "objects/000000/001.dcm"
    path.unlink()
    odd(path)
    with Index(data, STORAGE) as index:
        index.serve()
        kinds = {
            one.kind for one in index.verify(repair=True, grace=0) if one.path == "objects/000000/001.dcm"
        }
        assert kinds & {"object-missing", "object-corrupt"}
        assert ["objects/000000/001.dcm"] == index.backup(tmp_path / "backup").missing
    rebuilt = reindex(data, STORAGE, IndexSettings(), FhirSettings())
    assert 2 == rebuilt.instances
    with Index(data, STORAGE) as index:
        index.serve()
        index.delete(f"{ROOT}.1")
        assert [] == index.studies()


@ODD
@pytest.mark.parametrize("name", ["000003", "stranger", "000000"])
def test_in_the_place_of_a_folder_of_objects(tmp_path: Path, odd: Odd, name: str) -> None:
    with Index(tmp_path, STORAGE):
        pass
    odd(tmp_path / "objects" / name)
    filled(tmp_path)
    assert 3 == len([path for path in tmp_path.glob("objects/*/*.dcm") if path.is_file()])


@ODD
def test_in_incoming(tmp_path: Path, odd: Odd) -> None:
    filled(tmp_path)
    odd(tmp_path / "incoming/1-1-1")
    (tmp_path / "incoming/1-1-2").touch()
    with capture_logs() as logs, Index(tmp_path, STORAGE) as index:
        index.serve()
        assert not (tmp_path / "incoming/1-1-2").exists()
        # What can be unlinked is, a folder stays.
        is_left = odd is folder
        assert is_left == (passed_over(logs) == ["incoming/1-1-1"])
        found = [one for one in index.verify(repair=True, grace=0) if one.kind == "leftover"]
        assert [("incoming/1-1-1", False)] * is_left == [
            (one.path, one.mended) for one in found if one.path == "incoming/1-1-1"
        ]


@ODD
@pytest.mark.parametrize("name", ["journal", "journal/0", "journal/1"])
def test_in_the_place_of_the_journal(tmp_path: Path, odd: Odd, name: str) -> None:
    """Without a journal each small object is synced by itself. The target of a link is not changed."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    odd(tmp_path / name)
    before = os.lstat(tmp_path / name)
    with capture_logs() as logs:
        filled(tmp_path)
    if (odd, name) != (folder, "journal"):  # a folder is what it is to be
        assert [str(tmp_path / "journal")] == passed_over(logs)
    assert before.st_ino == os.lstat(tmp_path / name).st_ino
    with Index(tmp_path, STORAGE) as index:
        assert [3] == [study["instances"] for study in index.studies()]
        assert [] == list(index.verify(grace=0))


def test_a_journal_that_is_a_link_to_a_file_changes_nothing_there(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious" * 100)
    data = tmp_path / "data"
    (data / "journal").mkdir(parents=True)
    (data / "journal/0").symlink_to(precious)
    filled(data)
    assert b"precious" * 100 == precious.read_bytes()


def test_a_journal_on_another_disk(tmp_path: Path) -> None:
    """An operator may make the folder a link."""
    (tmp_path / "elsewhere").mkdir()
    data = tmp_path / "data"
    data.mkdir()
    (data / "journal").symlink_to(tmp_path / "elsewhere")
    with capture_logs() as logs, Index(data, STORAGE) as index:
        index.serve()
        keep(index, instance())
        assert (tmp_path / "elsewhere/0").stat().st_size
    assert [] == passed_over(logs)


@ODD
@pytest.mark.parametrize("name", ["lock", "use.lock"])
def test_in_the_place_of_a_lock(tmp_path: Path, odd: Odd, name: str) -> None:
    odd(tmp_path / name)
    filled(tmp_path)
    with Index(tmp_path, STORAGE) as index:
        index.serve()
        with Index(tmp_path, STORAGE) as other, pytest.raises(Locked, match="in use by a running"):
            other.serve()
        with pytest.raises(Locked):
            reindex(tmp_path, STORAGE, IndexSettings(), FhirSettings())


@ODD
def test_among_conflicts_and_resources(tmp_path: Path, odd: Odd) -> None:
    """A resource cannot replace a folder; those of other studies are published."""
    filled(tmp_path)
    odd(tmp_path / "conflicts/some.dcm")
    resource = tmp_path / f"fhir/r4/ImagingStudy/{ROOT}.1.json"
    resource.unlink()
    odd(resource)
    odd(tmp_path / "fhir/r4/Strange")
    with Index(tmp_path, STORAGE) as index:
        kinds = {one.kind for one in index.verify(grace=0)}
        assert {"resource-altered", "resource-missing"} & kinds
        keep(index, instance(number=8))
        keep(index, instance(study=2))
        index.publish()
        assert (tmp_path / f"fhir/r4/ImagingStudy/{ROOT}.2.json").is_file()
        assert resource.is_file() == (odd is not folder)


@ODD
def test_among_order_files(tmp_path: Path, odd: Odd) -> None:
    (tmp_path / "orders").mkdir()
    path = tmp_path / "orders/one.wl"
    odd(path)
    with pytest.raises((BadItem, OSError)):
        read_file(path)
    with Index(tmp_path / "data", STORAGE) as index:
        report = index.orders.import_files([tmp_path / "orders"])
        assert 0 == report.taken
        assert report.failed


@pytest.mark.parametrize("odd", [fifo, to_fifo, bound, folder])
@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-journal"])
def test_in_the_place_of_the_index(tmp_path: Path, odd: Odd, name: str) -> None:
    """It cannot do without; SQLite would wait at a pipe for ever (sqlite.org/fileformat2.html, Section 3)."""
    filled(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    odd(tmp_path / name)
    with pytest.raises(DatabaseFault, match=f"{name}: not a regular file; move it away"):
        Index(tmp_path, STORAGE)


def test_the_lock_holds_though_its_file_was_moved_away(start: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start()
    for name in ("lock", "use.lock"):
        (daemon.data / name).rename(tmp_path / name)
    second = cli("serve", "--data", str(daemon.data), "--port", "0", "--no-http")
    assert (1, True) == (second.returncode, "is in use by a running imagingstudyd" in second.stderr)
    again = cli("reindex", "--data", str(daemon.data))
    assert (1, True) == (again.returncode, "is in use by a running imagingstudyd" in again.stderr)
    # Commands that run beside a daemon still do.
    assert 0 == daemon.send(save(instance(), tmp_path / "one.dcm"), tool="storescu").returncode
    assert 0 == cli("delete", f"{ROOT}.1", "--data", str(daemon.data)).returncode
    assert 0 == daemon.stop()


def test_an_index_in_use_is_not_exchanged_though_its_lock_was_moved_away(tmp_path: Path) -> None:
    data = tmp_path / "data"
    filled(data)
    with Index(data, STORAGE):
        (data / "use.lock").rename(tmp_path / "use.lock")
        with pytest.raises(Locked, match="in use by another command"):
            reindex(data, STORAGE, IndexSettings(), FhirSettings())
    assert 3 == reindex(data, STORAGE, IndexSettings(), FhirSettings()).instances


READ_ONLY = """
import re, subprocess
from index import Index, StorageSettings
from scp.commands.main import main, register_commands
from scp.daemon import service
from support.dicom import ROOT, instance
from support.filling import keep
data = path / "data"
if not os.fork():
    index = Index(data, StorageSettings(watermark=0))
    index.serve()
    for number in range(1, 4):
        keep(index, instance(number=number))
    index._publisher.publish_all()
    END
    os._exit(0)
os.wait()
subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
register_commands()
def imagingstudyd(*arguments):
    # A process of its own, forked: what it imports is there already.
    streams = os.memfd_create("stdout"), os.memfd_create("stderr")
    if not (child := os.fork()):
        os.dup2(streams[0], 1), os.dup2(streams[1], 2)
        sys.argv = ["imagingstudyd", *arguments, "--data", str(data)]
        main()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, *(os.pread(stream, 1 << 20, 0).decode() for stream in streams)
for command in (
    ["studies", "--json"], ["show", f"{ROOT}.1", "--json"], ["changes", "--json"], ["verify"],
    ["worklist", "list"], ["retain", "--dry-run"], ["backup", str(path.parent / "backup")],
):
    done = imagingstudyd(*command)
    assert done[0] == 0, (command, done)
assert '"instances":3' in imagingstudyd("studies", "--json")[1]
assert (data / f"fhir/r5/ImagingStudy/{ROOT}.1.json").read_text() == imagingstudyd(
    "show", f"{ROOT}.1", "--fhir", "r5", "--json")[1]
assert len(list((path.parent / "backup").glob("objects/*/*.dcm"))) == 3
for command in (["delete", f"{ROOT}.1"], ["reindex"], ["serve", "--port", "0", "--no-http"]):
    status, said, why = imagingstudyd(*command)
    assert (status, "Traceback" in why) == (1, False), (command, status, why)
    assert re.search("read-?only|only be read", why.replace(str(path), ""), re.IGNORECASE), (command, why)
print("done")
"""


@pytest.mark.parametrize(
    "end",
    ["index.close()", "pass", "(data / 'index.sqlite-shm').unlink()"],
    ids=["stopped", "killed", "killed and copied without -shm"],
)
def test_reading_commands_on_a_read_only_file_system(tmp_path: Path, end: str) -> None:
    """sqlite.org/wal.html, "Read-Only Databases": a log needs its -shm file, or nobody who writes."""
    assert "done" in on_small_disk(READ_ONLY.replace("END", end), tmp_path / "disk", 32 * MEGABYTE)


# What root may do to any file it may not do without this.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
READING = (
    ("studies", "--json"),
    ("studies", "--unmatched", "--incomplete"),
    ("show", f"{ROOT}.1", "--json"),
    ("changes", "--json"),
    ("worklist", "list"),
    ("retain", "--dry-run"),
    ("verify",),
)


def reading(data: Path, *prefix: str) -> Iterator[subprocess.CompletedProcess[str]]:
    for command in READING:
        yield run(*prefix, sys.executable, "-m", "scp", *command, "--data", str(data))


@pytest.mark.parametrize("killed", [False, True])
def test_reading_commands_of_a_user_that_may_only_read(tmp_path: Path, *, killed: bool) -> None:
    """Such as one of the daemon's group; a file made beside the index would show that it was written."""
    data = tmp_path / "data"
    if not os.fork():
        index = Index(data, STORAGE)
        index.serve()
        keep(index, instance())
        index._publisher.publish_all()
        if not killed:
            index.close()
        os._exit(0)
    os.wait()
    paths = [data, *data.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for done in reading(data, *UNPRIVILEGED):
            assert 0 == done.returncode, done
        refused = run(*UNPRIVILEGED, sys.executable, "-m", "scp", "delete", f"{ROOT}.1", "--data", str(data))
        assert (1, False) == (refused.returncode, "Traceback" in refused.stderr)
        assert sorted(paths) == sorted([data, *data.rglob("*")])
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_reading_commands_beside_a_writer(tmp_path: Path) -> None:
    """They take no write lock: they would wait for this one, and fail."""
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        for done in reading(tmp_path):
            assert 0 == done.returncode, done
        writer.execute("ROLLBACK")


def test_the_read_only_view_of_a_daemon_that_runs(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """A read-only mount of a directory that another process writes, as containers have them."""
    daemon = start()
    view = tmp_path / "view"
    view.mkdir()
    mount = 'mount --bind "$0" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    for number in (1, 2):
        sent = save(instance(number=number), tmp_path / f"{number}.dcm")
        assert 0 == daemon.send(sent, tool="storescu").returncode
        studies = ["-m", "scp", "studies", "--json", "--data", str(view)]
        command = ["sh", "-c", mount, str(daemon.data), str(view), sys.executable, *studies]
        said = run("unshare", "--user", "--map-root-user", "--mount", *command)
        assert (0, True) == (said.returncode, f'"instances":{number}' in said.stdout), said
