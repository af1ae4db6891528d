"""The change feed: every change of content once, in order, from any point."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import FhirSettings, Index
from support.daemon import cli
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
