"""Objects in a store that nodes share: received, read, deleted and verified as those of a directory are."""

import itertools
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from index import DatabaseFault, Index, NotFound, NotKept, Outcome, StorageSettings
from index.database.node import nodes
from index.database.settings import IndexSettings
from index.database.tables import Instance, StoreRow
from index.errors import ForeignStore
from index.imagingstudy.settings import FhirSettings
from index.maintenance import store_keeping
from index.maintenance.store_keeping import find_orphans, remove_orphans
from index.maintenance.verify.findings import Kind
from index.reindexing import reindex
from index.storage.object_keys import day_of, new_key, node_of
from support.daemon import eventually
from support.dicom import ROOT, encoded, instance
from support.filling import begun, keep, receive
from support.object_server import BUCKET
from support.postgresql import create_database, drop_database

_numbers = itertools.count()
KINDS = ("s3", "folder", "journal")
LARGE = instance(number=2, PixelData=bytes(range(256)) * 25_000, BitsAllocated=8, Rows=1)


def settings(kind: str, request: pytest.FixtureRequest, tmp_path: Path, **more: object) -> StorageSettings:
    if kind == "folder":
        (tmp_path / "shared").mkdir(exist_ok=True)
        return StorageSettings(url=f"file://{tmp_path}/shared", watermark=0, **more)
    url = f"s3://{BUCKET}/{request.getfixturevalue('prefix')}"
    by = {"acknowledge": "journal"} if kind == "journal" else {}
    return StorageSettings(url=url, endpoint=request.getfixturevalue("server"), watermark=0, **by, **more)


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageSettings:
    return settings(request.param, request, tmp_path)


def served(data: Path, storage: StorageSettings) -> Index:
    index = Index(data, storage)
    index.serve()
    return index


@pytest.fixture
def index(tmp_path: Path, storage: StorageSettings) -> Iterator[Index]:
    with served(tmp_path / "data", storage) as opened:
        yield opened


def read(index: Index, uid: str) -> bytes:
    (found,) = index.retrieval.find_uid(uid).instances()
    with index.retrieval.open(found) as file:
        return file.read()


def paths(index: Index) -> list[str]:
    return sorted(path for (path,) in index._database.rows(Instance.select(Instance.path)))


def in_store(index: Index, folder: str = "objects/") -> list[str]:
    return sorted(path for path, _, _ in index._objects.remote.listed(folder))


def is_uploaded(index: Index) -> bool:
    return not len(index._objects.pending) and not list(index.data.glob("objects/**/*.dcm"))


@pytest.mark.parametrize("dataset", [instance(), LARGE], ids=["small", "large"])
def test_an_object_is_read_as_it_was_received(index: Index, dataset) -> None:
    assert Outcome.STORED == keep(index, dataset).outcome
    assert encoded(dataset) == read(index, dataset.SOPInstanceUID)
    assert eventually(lambda: is_uploaded(index))
    assert encoded(dataset) == read(index, dataset.SOPInstanceUID)
    assert paths(index) == in_store(index)
    assert [] == list(index.verify(grace=0))


@pytest.mark.parametrize("storage", ["s3", "folder"], indirect=True)
@pytest.mark.parametrize("dataset", [instance(), LARGE], ids=["small", "large"])
def test_an_object_is_in_the_store_when_it_is_acknowledged(index: Index, dataset) -> None:
    receive(index, dataset)
    assert paths(index) == in_store(index)
    assert [] == list(index.data.rglob("*.dcm"))


@pytest.mark.parametrize("storage", ["s3", "journal"], indirect=True)
def test_a_duplicate_leaves_one_object(index: Index) -> None:
    keep(index, instance())
    assert Outcome.DUPLICATE == keep(index, instance()).outcome
    assert eventually(lambda: paths(index) == in_store(index))


def test_a_conflict_is_kept_aside(index: Index) -> None:
    keep(index, instance())
    assert Outcome.CONFLICT == keep(index, instance(StudyDescription="Other")).outcome
    assert 1 == len(index._objects.kept_aside())
    assert eventually(lambda: 1 == len(in_store(index, "conflicts/")))
    assert eventually(lambda: paths(index) == in_store(index))


@pytest.mark.parametrize("storage", ["s3", "journal"], indirect=True)
def test_one_that_is_replaced_is_kept_aside(tmp_path: Path, storage: StorageSettings) -> None:
    storage = storage.model_copy(update={"duplicates": "replace"})
    with served(tmp_path / "data", storage) as index:
        keep(index, instance())
        other = instance(StudyDescription="Other")
        assert Outcome.REPLACED == keep(index, other).outcome
        assert encoded(other) == read(index, other.SOPInstanceUID)
        assert 1 == len(index._objects.kept_aside())
        assert eventually(lambda: paths(index) == in_store(index))


def test_what_is_deleted_leaves_the_store(index: Index) -> None:
    keep(index, instance())
    keep(index, LARGE)
    index.delete(f"{ROOT}.1")
    assert [] == list(index._objects.filed_since(None))
    assert eventually(lambda: is_uploaded(index) and in_store(index) == [])


def test_the_index_is_made_from_the_store(tmp_path: Path, storage: StorageSettings) -> None:
    data = tmp_path / "data"
    with served(data, storage) as opened:
        keep(opened, instance())
        keep(opened, LARGE)
    (data / "index.sqlite").unlink()
    assert 2 == reindex(data, storage, IndexSettings(), FhirSettings()).instances
    with served(data, storage) as again:
        assert [] == list(again.verify(grace=0))


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_verify_indexes_what_has_no_row(tmp_path: Path, storage: StorageSettings) -> None:
    with served(tmp_path / "data", storage) as index:
        keep(index, instance())
        keep(index, LARGE)
    with Index(tmp_path / "data", storage) as index:
        index._database.execute(Instance.delete().where(Instance.uid == LARGE.SOPInstanceUID))
        found = list(index.verify(grace=0, repair=True))
        assert (Kind.OBJECT_WITHOUT_ROW, True) in {(one.kind, one.mended) for one in found}
        assert encoded(LARGE) == read(index, LARGE.SOPInstanceUID)


@pytest.mark.parametrize("storage", ["journal"], indirect=True)
def test_what_was_uploaded_before_its_row_is_found_by_a_replay(index: Index) -> None:
    keep(index, LARGE)
    assert eventually(lambda: is_uploaded(index))
    assert paths(index)[0] == index._objects.standing("incoming/gone", *paths(index))
    assert None is index._objects.standing("incoming/gone", new_key(0))


def test_a_key_tells_node_and_day() -> None:
    key = new_key(3, 1_795_663_000)
    assert key.startswith("objects/3-2026/1126/0316/")
    assert (3, "2026-11-26") == (node_of(key), str(day_of(key)))
    assert 0 == node_of(new_key(0))
    assert None is day_of("objects/000000/000.dcm")
    assert sorted(keys := [new_key(0, 1_795_663_000 + n / 1000) for n in range(20)]) == keys


def test_an_object_that_a_try_has_made_already_is_taken(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for kind in ("s3", "folder"):
        with served(tmp_path / kind, settings(kind, request, tmp_path)) as index:
            index._objects.write("objects/2026/0101/0000/one.dcm", b"content")
            index._objects.write("objects/2026/0101/0000/one.dcm", b"content")
            with pytest.raises(FileExistsError):
                index._objects.write("objects/2026/0101/0000/one.dcm", b"other")


def test_an_upload_that_is_cut_off_leaves_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, server: str, prefix: str
) -> None:
    def uploads() -> bytes:
        with urllib.request.urlopen(f"{server}/{BUCKET}?uploads") as answer:  # noqa: S310
            return answer.read()

    with served(tmp_path, settings("s3", request, tmp_path)) as index:
        receiver = begun(index, LARGE)
        assert eventually(lambda: prefix.encode() in uploads())
        receiver.discard()
        assert eventually(lambda: prefix.encode() not in uploads())
        assert [] == in_store(index)


@pytest.mark.parametrize(
    "url",
    [
        "s3:/x",
        "gs://bucket",
        "s3://B",
        "s3://user:secret@bucket/x",
        "",
        "file://host/x",
        "file:relative",
        "file:///",
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="allowed is s3://bucket/prefix"):
        StorageSettings(url=url)


@pytest.mark.parametrize(
    "given",
    [{"acknowledge": "journal"}, {"endpoint": "http://x"}, {"url": "file:///x", "region": "eu-west-1"}],
)
def test_what_belongs_to_a_url_needs_it(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"needs storage\.url"):
        StorageSettings(**given)


# Whose the store is


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_objects_of_a_directory_are_not_left(tmp_path: Path, storage: StorageSettings) -> None:
    with served(tmp_path / "data", StorageSettings(watermark=0)) as index:
        keep(index, instance())
    with pytest.raises(ForeignStore, match=r"objects of this index are in .*migrate-storage"):
        Index(tmp_path / "data", storage)


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_objects_of_a_store_are_not_left(tmp_path: Path, storage: StorageSettings) -> None:
    with served(tmp_path / "data", storage) as index:
        keep(index, instance())
    with pytest.raises(ForeignStore, match=r"storage\.url is not set"):
        Index(tmp_path / "data", StorageSettings(watermark=0))
    (tmp_path / "other").mkdir()
    with pytest.raises(ForeignStore, match="objects of this index are in"):
        Index(tmp_path / "data", StorageSettings(url=f"file://{tmp_path}/other", watermark=0))


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_a_store_is_of_one_index(tmp_path: Path, storage: StorageSettings) -> None:
    with served(tmp_path / "data", storage) as index:
        keep(index, instance())
        assert eventually(lambda: is_uploaded(index))
    with pytest.raises(ForeignStore, match="is the store of another index"):
        Index(tmp_path / "foreign", storage)


def test_a_store_that_has_moved_is_taken(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with served(tmp_path / "data", settings("folder", request, tmp_path)) as index:
        keep(index, instance())
    (tmp_path / "shared").rename(tmp_path / "elsewhere")
    moved = StorageSettings(url=f"file://{tmp_path}/elsewhere", watermark=0)
    with served(tmp_path / "data", moved) as index:
        assert encoded(instance()) == read(index, instance().SOPInstanceUID)


def test_a_store_that_does_not_answer_is_named(tmp_path: Path, prefix: str) -> None:
    storage = StorageSettings(url=f"s3://{BUCKET}/{prefix}", endpoint="http://127.0.0.1:9", watermark=0)
    with pytest.raises(DatabaseFault, match=rf"storage.url: s3://{BUCKET}/{prefix}: object store: "):
        Index(tmp_path, storage)


def test_a_folder_that_is_not_mounted_is_left_alone(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Else instances would be kept below the mount point, where no other node finds them."""
    with served(tmp_path / "data", settings("folder", request, tmp_path)) as index:
        shared = tmp_path / "shared"
        shared.rename(tmp_path / "unmounted")
        shared.mkdir()
        with pytest.raises(NotKept, match="is the folder mounted"):
            keep(index, instance())
        assert [] == list(shared.iterdir())
        shared.rmdir()
        (tmp_path / "unmounted").rename(shared)
        assert eventually(lambda: not index.state().store_away)
        keep(index, instance())


# Orphans


def put_orphans(index: Index, count: int, days: float) -> list[str]:
    keys = [new_key(0, store_keeping.now() / 1000 - 86_400 * days) for _ in range(count)]
    for key in keys:
        index._objects.write(key, b"orphan")
    index._database.execute(StoreRow.update(swept=0))
    return keys


def sweep(index: Index) -> int:
    found = find_orphans(index._database, index._objects)
    return remove_orphans(index._database, index._objects, found) if found else 0


@pytest.mark.parametrize("storage", ["s3", "folder"], indirect=True)
def test_old_keys_without_a_row_are_removed(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(index, instance())
    old, young = put_orphans(index, 3, 4), put_orphans(index, 1, 0.5)
    assert 3 == sweep(index)
    assert sorted(paths(index) + young) == in_store(index)
    # Four days later what has a row stays.
    later = store_keeping.now() + 4 * 86_400_000
    monkeypatch.setattr(store_keeping, "now", lambda: later)
    assert 1 == sweep(index)
    assert paths(index) == in_store(index)
    assert not set(old) & set(in_store(index))


@pytest.mark.parametrize("storage", ["folder"], indirect=True)
def test_a_key_that_gets_its_row_meanwhile_stays(index: Index) -> None:
    """What the journal had acknowledged, before the database was away for days."""
    receive(index, instance())
    (path,) = put_orphans(index, 1, 4)
    found = find_orphans(index._database, index._objects)
    index._database.execute(Instance.update(path=path))
    assert {path} == found.keys
    assert 0 == remove_orphans(index._database, index._objects, found)
    assert path in in_store(index)


@pytest.mark.parametrize("storage", ["folder"], indirect=True)
def test_many_keys_without_a_row_are_left(index: Index) -> None:
    """They are of another index: a copy of this one, which was restored for a test, must not remove them."""
    put_orphans(index, 101, 4)
    assert 0 == sweep(index)
    assert 101 == len(in_store(index))


@pytest.mark.parametrize("storage", ["folder"], indirect=True)
def test_a_store_of_another_identity_is_not_swept(index: Index, tmp_path: Path) -> None:
    put_orphans(index, 1, 4)
    (tmp_path / "shared/identity").write_text("other\n")
    assert 0 == sweep(index)
    assert 1 == len(in_store(index))


# Several nodes


@pytest.fixture
def two(storage: StorageSettings, postgresql_server: str, tmp_path: Path) -> Iterator[tuple[Index, Index]]:
    name = f"stores{next(_numbers)}"
    url = IndexSettings(url=SecretStr(create_database(postgresql_server, name)))
    with (
        Index(tmp_path / "one", storage, url, joins=True) as one,
        Index(tmp_path / "two", storage, url, joins=True) as other,
    ):
        one.serve()
        other.serve()
        yield one, other
    drop_database(postgresql_server, name)


@pytest.mark.parametrize("storage", ["s3", "folder"], indirect=True)
def test_each_node_reads_verifies_and_deletes_what_others_received(two: tuple[Index, Index]) -> None:
    one, other = two
    receive(one, instance(1, 1, 1))
    receive(other, instance(1, 1, 2))
    second = nodes(one._database)[1].id
    assert {0, second} == {node_of(path) for path in paths(one)}
    for index in two:
        assert encoded(instance(1, 1, 1)) == read(index, instance(1, 1, 1).SOPInstanceUID)
        assert encoded(instance(1, 1, 2)) == read(index, instance(1, 1, 2).SOPInstanceUID)
        index._publisher.publish_all()
        kinds = {str(found.kind) for found in index.verify(grace=0)}
        assert not [kind for kind in kinds if "resource" not in kind.lower()]
    assert 2 == one.delete(f"{ROOT}.1").instances
    assert [] == in_store(other)


@pytest.mark.parametrize("storage", ["journal"], indirect=True)
def test_what_waits_at_another_node_is_neither_missing_nor_forgotten(two: tuple[Index, Index]) -> None:
    one, other = two
    other._store_keeping.stop()
    for dataset in (instance(1, 1, 1), instance(1, 1, 2)):
        keep(other, dataset)
    assert [False, False] == [one._integrity.holds(path) for path in paths(one)]
    assert [True, True] == [other._integrity.holds(path) for path in paths(one)]
    with pytest.raises(NotFound, match="has to upload it"):
        read(one, instance(1, 1, 1).SOPInstanceUID)
    one._publisher.publish_all()
    assert not [one for one in one.verify(grace=0) if "object" in str(one.kind).lower()]
    # A deletion elsewhere is finished by the node that has the object.
    one.delete(instance(1, 1, 2).SOPInstanceUID)
    assert 1 == len(paths(one))
    assert 2 == len(list(other.data.glob("objects/**/*.dcm")))
    other._deletion.finish()
    assert 1 == len(list(other.data.glob("objects/**/*.dcm")))
    for path in other._objects.pending.take(9):
        other._objects.upload(path)
    assert paths(one) == in_store(one)
    assert encoded(instance(1, 1, 1)) == read(one, instance(1, 1, 1).SOPInstanceUID)
