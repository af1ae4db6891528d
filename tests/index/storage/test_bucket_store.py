"""Objects in a bucket: received, read, deleted and verified as those of a folder are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index import Index, NotKept, Outcome, StorageSettings
from index.database.settings import IndexSettings
from index.imagingstudy.settings import FhirSettings
from index.reindexing import reindex
from support.dicom import ROOT, encoded, instance
from support.filling import keep, receive
from support.object_server import BUCKET, KEYS, object_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with object_server() as url:
        yield url


@pytest.fixture
def storage(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StorageSettings:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    prefix = "".join(one if one.isalnum() else "-" for one in request.node.name)
    return StorageSettings(url=f"s3://{BUCKET}/{prefix}", endpoint=server, watermark=0)


@pytest.fixture
def index(tmp_path: Path, storage: StorageSettings) -> Iterator[Index]:
    with Index(tmp_path, storage) as opened:
        opened.serve()
        yield opened


def read(index: Index, uid: str) -> bytes:
    (found,) = index.retrieval.find_uid(uid).instances()
    with index.retrieval.open(found) as file:
        return file.read()


LARGE = instance(number=2, PixelData=bytes(range(256)) * 80_000, BitsAllocated=8, Rows=1)


@pytest.mark.parametrize("dataset", [instance(), LARGE], ids=["small", "large"])
def test_an_object_is_in_the_bucket_when_it_is_acknowledged(index: Index, dataset, tmp_path: Path) -> None:
    kept = receive(index, dataset)
    assert Outcome.STORED == kept.outcome
    assert encoded(dataset) == read(index, dataset.SOPInstanceUID)
    assert [] == list(tmp_path.rglob("*.dcm"))
    assert [] == list(index.verify(grace=0))


def test_a_duplicate_leaves_one_object(index: Index) -> None:
    receive(index, instance())
    assert Outcome.DUPLICATE == receive(index, instance()).outcome
    assert 1 == len(list(index._objects.filed_since(None)))


def test_a_conflict_is_kept_aside(index: Index) -> None:
    receive(index, instance())
    assert Outcome.CONFLICT == receive(index, instance(StudyDescription="Other")).outcome
    assert 1 == len(index._objects.kept_aside())
    assert 1 == len(list(index._objects.filed_since(None)))


def test_what_is_deleted_leaves_the_bucket(index: Index) -> None:
    receive(index, instance())
    receive(index, LARGE)
    index.delete(f"{ROOT}.1")
    assert [] == list(index._objects.filed_since(None))


def test_the_index_is_made_from_the_bucket(tmp_path: Path, storage: StorageSettings) -> None:
    with Index(tmp_path, storage) as opened:
        opened.serve()
        receive(opened, instance())
        receive(opened, LARGE)
    (tmp_path / "index.sqlite").unlink()
    assert 2 == reindex(tmp_path, storage, IndexSettings(), FhirSettings()).instances


def test_an_object_that_a_try_has_made_already_is_taken(index: Index) -> None:
    index._objects.write("objects/20260101/one.dcm", b"content")
    index._objects.write("objects/20260101/one.dcm", b"content")
    with pytest.raises(FileExistsError):
        index._objects.write("objects/20260101/one.dcm", b"other")


def test_without_the_store_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    storage = StorageSettings(url=f"s3://{BUCKET}", endpoint="http://127.0.0.1:9", watermark=0)
    with Index(tmp_path, storage) as opened:
        opened.serve()
        with pytest.raises(NotKept, match="object store"):
            keep(opened, instance())
        assert [] == opened.studies()


@pytest.mark.parametrize("url", ["s3:/x", "gs://bucket", "s3://B", "s3://user:secret@bucket/x", ""])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="allowed is s3://bucket/prefix"):
        StorageSettings(url=url)
