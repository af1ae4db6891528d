"""All of pydicom's files in one archive: imported, verified, reindexed, and the same after a power cut.

Several share a SOP Instance UID, some are not instances, some break the standard in surprising ways.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from index import FhirSettings, Index, IndexSettings, Report, reindex
from support.daemon import Daemon
from support.dicom import data_set_of
from support.disk import Disk
from support.filling import STORAGE, files
from support.load import SUCCESS
from support.sender import Sender
from support.trace import Call, answers, read, strace
from test_pydicom_files import FOLDERS, UIDS
from test_pydicom_files import files as readable_files

# What the journal takes, and a little more: each write is recorded whole.
LARGEST = 128 * 1024
RECORDED = 4 * 70_000
CUTS = 6

Row = tuple[object, ...]
ROWS = (
    "SELECT i.uid, i.sop_class_uid, i.transfer_syntax, i.path, i.size, i.sha1, i.attributes, se.uid, st.uid"
    " FROM instance i JOIN series se ON se.id = i.series_id JOIN study st ON st.id = se.study_id"
    " ORDER BY i.uid"
)


def state(data: Path) -> tuple[list[Row], dict[str, bytes]]:
    """Return all rows and the bytes of all resources, when all is published and without fault."""
    with Index(data, STORAGE) as index:
        index.serve()  # what a power cut has left is finished first
        rows = list(index._database.peewee.execute_sql(ROWS).fetchall())
    with Index(data, STORAGE) as index:
        index.publish()
        assert [] == list(index.verify(grace=0))
    return rows, files(data / "fhir")


def made_anew(data: Path) -> tuple[list[Row], dict[str, bytes]]:
    rebuilt = reindex(data, STORAGE, IndexSettings(), FhirSettings())
    assert ([], []) == (rebuilt.missing, rebuilt.not_indexed)
    return state(data)


def has_uids(path: Path) -> bool:
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    return all(str(dataset.get(keyword, "")).replace(".", "").isdigit() for keyword in UIDS)


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, Report]:
    with Index(tmp_path / "data", STORAGE) as index:
        return tmp_path / "data", index.import_files(FOLDERS)


def test_all_files_that_pydicom_reads_are_taken(archive: tuple[Path, Report]) -> None:
    _, report = archive
    left_out = {path for path, _ in (*report.failed, *report.passed_over)}
    good = {path for path in readable_files() if has_uids(path)}
    assert len(good) > 200
    assert set() == good & left_out
    assert len(good) <= report.outcomes.total()


def test_an_index_made_anew_says_the_same(archive: tuple[Path, Report]) -> None:
    data, _ = archive
    before = state(data)
    assert before == made_anew(data)


def test_an_index_made_of_the_objects_alone_says_the_same(archive: tuple[Path, Report]) -> None:
    data, _ = archive
    rows, resources = state(data)
    for path in data.glob("index.sqlite*"):
        path.unlink()
    assert (rows, resources) == made_anew(data)


def send(daemon: Daemon) -> dict[str, list[bytes]]:
    """Send the smaller files; return the data sets that were acknowledged, by SOP Instance UID."""
    kept: dict[str, list[bytes]] = {}
    for path in readable_files():
        if path.stat().st_size > LARGEST or not has_uids(path):
            continue
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        sender = Sender(
            (daemon.host, daemon.port),
            sop_class=str(dataset.SOPClassUID),
            syntax=str(dataset.file_meta.TransferSyntaxUID),
        )
        content = data_set_of(path)
        assert SUCCESS == sender.send(str(dataset.SOPInstanceUID), content), path
        sender.release()
        kept.setdefault(str(dataset.SOPInstanceUID), []).append(content)
    return kept


def moments(calls: list[Call]) -> list[int]:
    """Return random moments after the first answer, and the end."""
    first = min(began for began, _, _ in answers(calls))
    return [random.randint(first, calls[-1].begin) for _ in range(CUTS - 1)] + [calls[-1].begin + 1]


def test_a_power_cut_changes_nothing_of_what_was_acknowledged(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The journal holds most of them at that moment; tests/support/disk.py is the model of the disk."""
    trace = tmp_path / "trace"
    disk = tmp_path / "disk"
    disk.mkdir()
    daemon = start(data=disk / "data", prefix=strace(trace, strings=RECORDED))
    sent = send(daemon)
    assert len(sent) > 100
    daemon.kill()
    calls = read(trace)
    whole = state(disk / "data")
    for number, cut in enumerate(moments(calls)):
        seed = random.random()
        target = tmp_path / f"cut{number}"
        Disk(disk, calls, cut).restore(target, random.Random(seed))
        said = f"cut at {cut}, seed {seed}"
        acknowledged = {uid for began, uid, status in answers(calls) if began < cut and status == SUCCESS}
        rows, resources = state(target / "data")
        assert set() == acknowledged - {row[0] for row in rows}, said
        for row in rows:
            assert data_set_of(target / "data" / str(row[3])) == sent[str(row[0])][0], said
        assert (rows, resources) == made_anew(target / "data"), said
        if cut > calls[-1].begin:
            assert whole[1] == resources, said
        shutil.rmtree(target)
