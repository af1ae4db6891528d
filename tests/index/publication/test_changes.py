"""The change feed: every change of content once, in order, from any point."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index import ChangesPruned, FhirSettings, Index
from index.publication import feed as feed_module
from index.publication.feed import prune
from support.daemon import Daemon, cli, eventually
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep

DSTU2 = FhirSettings(versions=("dstu2",))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "data", STORAGE, fhir=DSTU2)
    yield index
    index.close()


def feed(index: Index, since: int = 0) -> list[tuple[str, str, int]]:
    return [(entry.change, entry.type, entry.version) for entry in index.changes(since)]


def test_a_stopping_publisher_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        for number in (1, 2, 3):
            keep(index, instance(number))
        index._publisher.stop(0)
        assert 0 == index.state().failing
        assert [] == list(index.changes())
    with Index(tmp_path, STORAGE) as index:
        assert 3 == index.publish()


def test_a_version_counts_changes_of_content(index: Index) -> None:
    keep(index, instance(number=1))
    index.publish()
    assert [("created", "ImagingStudy", 1), ("created", "Patient", 1)] == sorted(feed(index))
    last = max(entry.seq for entry in index.changes())
    keep(index, instance(number=2))
    index.publish()
    assert [("updated", "ImagingStudy", 2)] == feed(index, last)
    keep(index, instance(number=2))
    assert 0 == index.publish()
    assert [("updated", "ImagingStudy", 2)] == feed(index, last)


def test_numbers_only_grow_and_any_point_is_a_beginning(index: Index) -> None:
    for study in (1, 2, 3):
        keep(index, instance(study))
        index.publish()
    entries = list(index.changes())
    assert sorted(entry.seq for entry in entries) == [entry.seq for entry in entries]
    for entry in entries:
        assert [one for one in entries if one.seq > entry.seq] == list(index.changes(entry.seq))


def test_what_two_studies_share_goes_with_the_last(index: Index) -> None:
    for study in (1, 2):
        keep(index, instance(study, PatientID="P"))
    index.publish()
    for study, left in ((1, ["ImagingStudy", "Patient"]), (2, [])):
        index.delete(f"{ROOT}.{study}")
        index.publish()
        assert left == sorted(path.split("/")[1] for path in files(index.data / "fhir"))
    assert 3 == sum(change == "deleted" for change, _, _ in feed(index))


def test_a_resource_comes_back_with_a_further_version(index: Index) -> None:
    for _ in range(2):
        keep(index, instance())
        index.publish()
        index.delete(f"{ROOT}.1")
        index.publish()
    studies = [(change, version) for change, kind, version in feed(index) if kind == "ImagingStudy"]
    assert [("created", 1), ("deleted", 2), ("created", 3), ("deleted", 4)] == studies


def test_what_studies_of_one_patient_say_is_told_anew_when_one_goes(index: Index) -> None:
    keep(index, instance(1, PatientID="P", PatientName="Right^Name"))
    for number in (1, 2):
        keep(index, instance(2, 1, number, PatientID="P", PatientName="Wrong^Name"))
    index.publish()
    index.delete(f"{ROOT}.2")
    index.publish()
    (patient,) = (index.data / "fhir/dstu2/Patient").iterdir()
    assert ["Right"] == json.loads(patient.read_bytes())["name"][0]["family"]


@pytest.mark.sqlite
def test_the_command_prints_and_follows(index: Index) -> None:
    keep(index, instance(1))
    index.publish()
    data = ("--data", str(index.data))
    printed = [json.loads(line) for line in cli("changes", *data, "--json").stdout.splitlines()]
    assert [entry.seq for entry in index.changes()] == [one["seq"] for one in printed]
    last = str(printed[-1]["seq"])
    command = [sys.executable, "-m", "scp", "changes", *data, "--json", "--follow", "--since", last]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        keep(index, instance(2))
        index.publish()
        assert following.stdout is not None
        assert int(last) < json.loads(following.stdout.readline())["seq"]
        following.kill()


def test_the_feed_is_pruned_and_a_reader_who_would_miss_entries_is_told(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "PAGE", 3)
    for number in range(1, 9):
        keep(index, instance(1, 1, number))
        index.publish()
    every = [entry.seq for entry in index.changes()]
    assert 0 == prune(index._database, 100)
    assert len(every) - 4 == prune(index._database, 4)
    assert every[-4:] == [entry.seq for entry in index.changes()]
    assert (every[-5], 0) == (index.changes_pruned(), prune(index._database, 4))
    assert every[-4:] == [entry.seq for entry in index.changes(every[-5])]
    for since in (1, every[-5] - 1):
        with pytest.raises(
            ChangesPruned, match=rf"up to number {every[-5]} .*keep_changes.*, {since} is before"
        ):
            list(index.changes(since))
    keep(index, instance(1, 1, 9))
    index.publish()
    assert [every[-1] + 1] == [entry.seq for entry in index.changes(every[-1])]


def test_entries_that_are_pruned_under_a_reader_are_told(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "PAGE", 2)
    for number in range(1, 9):
        keep(index, instance(1, 1, number))
        index.publish()
    reader = index.changes()
    first = [next(reader), next(reader)]
    assert [1, 2] == [entry.seq for entry in first]
    prune(index._database, 1)
    with pytest.raises(ChangesPruned, match="keep_changes"):
        list(reader)


@pytest.mark.sqlite
def test_the_command_tells_of_pruned_changes(index: Index) -> None:
    for number in (1, 2, 3):
        keep(index, instance(1, 1, number))
        index.publish()
    prune(index._database, 1)
    done = cli("changes", "--data", str(index.data))
    assert (0, 1) == (done.returncode, len(done.stdout.splitlines()))
    assert "changes up to number 3 have been deleted ([publish] keep_changes)" in done.stderr
    done = cli("changes", "--data", str(index.data), "--since", "1")
    assert (1, "") == (done.returncode, done.stdout)
    assert "then the changes since 3" in done.stderr


def test_a_daemon_prunes_the_feed(start: Callable[..., Daemon], tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE, fhir=DSTU2) as index:
        for number in range(1, 9):
            keep(index, instance(1, 1, number))
            index.publish()
    start(IMAGINGSTUDYD_PUBLISH__KEEP_CHANGES="2", IMAGINGSTUDYD_FHIR__VERSIONS='["dstu2"]')
    assert eventually(lambda: 2 == len(cli("changes", "--data", str(tmp_path / "data")).stdout.splitlines()))
