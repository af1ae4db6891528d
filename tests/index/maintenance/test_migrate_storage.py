"""The objects of an index in another store, and back: proven, resumed, refused where something is wrong."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from index import DatabaseFault, Index, IndexSettings, MigratedStorage, StorageSettings, migrate_storage
from index.database.tables import Instance
from index.errors import ForeignStore
from index.imagingstudy.settings import FhirSettings
from index.reindexing import reindex
from support.dicom import encoded, instance
from support.filling import STORAGE, keep
from support.object_server import BUCKET, KEYS, object_server
from support.postgresql import create_database, drop_database


@contextmanager
def silent(_phase: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def migrate(
    data: Path,
    source: str,
    target: str,
    storage: StorageSettings = STORAGE,
    index: IndexSettings | None = None,
) -> MigratedStorage:
    return migrate_storage(data, storage, index or IndexSettings(), source, target, silent)


def shared(tmp_path: Path) -> StorageSettings:
    (tmp_path / "shared").mkdir(exist_ok=True)
    return STORAGE.model_copy(update={"url": f"file://{tmp_path}/shared"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with Index(tmp_path / "data", STORAGE) as index:
        index.serve()
        for number in range(3):
            keep(index, instance(number=number + 1))
        keep(index, instance(StudyDescription="Other"))
    return tmp_path / "data"


def is_whole(data: Path, storage: StorageSettings, instances: int = 3) -> bool:
    with Index(data, storage) as index:
        assert [] == list(index.verify(grace=0))
        (found,) = index.retrieval.find_uid(instance().SOPInstanceUID).instances()
        with index.retrieval.open(found) as file:
            assert encoded(instance()) == file.read()
        return instances == index.studies()[0]["instances"] and 1 == len(index._objects.kept_aside())


def test_to_a_folder_and_back(data: Path, tmp_path: Path) -> None:
    storage = shared(tmp_path)
    done = migrate(data, "data", storage.url)
    assert (4, 4, [], True) == (done.objects, done.copied, done.faults, done.switched)
    assert 4 == len(list(Path(done.left).rglob("*.dcm")))
    assert is_whole(data, storage)
    with Index(data, storage) as index:
        index.serve()
        keep(index, instance(number=9))
    back = migrate(data, storage.url, "data")
    assert (5, 5, True) == (back.objects, back.copied, back.switched)
    assert is_whole(data, STORAGE, 4)
    with Index(data, STORAGE) as index:
        index.serve()
        keep(index, instance(number=10))
    (data / "index.sqlite").unlink()
    assert 5 == reindex(data, STORAGE, IndexSettings(), FhirSettings()).instances
    assert not (data / "migrating").exists()


def test_to_a_bucket_and_back(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with object_server() as server:
        storage = StorageSettings(url=f"s3://{BUCKET}/a", endpoint=server, watermark=0)
        assert migrate(data, "data", f"s3://{BUCKET}/a", storage).switched
        assert is_whole(data, storage)
        assert migrate(data, f"s3://{BUCKET}/a", "data", storage).switched
        assert is_whole(data, STORAGE)


def test_an_interrupted_run_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from index.maintenance import migrate_storage as module

    storage = shared(tmp_path)
    monkeypatch.setattr(module, "PAGE", 1)
    plain, copied = module._Migration._copy, []

    def stop(self, item):
        if len(copied) == 3:
            raise KeyboardInterrupt
        copied.append(item.path)
        return plain(self, item)

    monkeypatch.setattr(module._Migration, "_copy", stop)
    with pytest.raises(KeyboardInterrupt):
        migrate(data, "data", storage.url)
    assert is_whole(data, STORAGE)
    with Index(data, STORAGE) as index:  # goes on in between
        index.serve()
        index.delete(instance(number=1).SOPInstanceUID)
        keep(index, instance(number=8))
    monkeypatch.setattr(module._Migration, "_copy", plain)
    done = migrate(data, "data", storage.url)
    assert done.switched
    assert done.copied < done.objects
    assert done.objects == len(list((tmp_path / "shared").rglob("*.dcm")))


def test_a_damaged_object_keeps_the_store_in_use(data: Path, tmp_path: Path) -> None:
    storage = shared(tmp_path)
    one, other, *_ = sorted((data / "objects").rglob("*.dcm"))
    whole = one.read_bytes()
    one.write_bytes(whole[:-1] + b"x")
    gone = other.read_bytes()
    other.unlink()
    done = migrate(data, "data", storage.url)
    assert not done.switched
    assert ["has SHA-1", "is missing"] == sorted(" ".join(why.split(" ")[:2]) for _, why in done.faults)
    one.write_bytes(whole)
    other.write_bytes(gone)
    assert is_whole(data, STORAGE)
    assert migrate(data, "data", storage.url).switched
    assert is_whole(data, storage)


def test_what_is_not_the_store_is_not_migrated(data: Path, tmp_path: Path) -> None:
    storage = shared(tmp_path)
    with pytest.raises(DatabaseFault, match="FROM: the objects of this index are in"):
        migrate(data, storage.url, "data")
    with Index(tmp_path / "foreign", storage) as foreign:
        foreign.serve()
        keep(foreign, instance())
    with pytest.raises(ForeignStore, match="of another index"):
        migrate(data, "data", storage.url)


def test_each_node_copies_its_own(postgresql_server: str, tmp_path: Path) -> None:
    url = IndexSettings(url=SecretStr(create_database(postgresql_server, "storages")))
    storage = shared(tmp_path)
    for name in ("one", "two"):
        with Index(tmp_path / name, STORAGE, url, joins=True) as index:
            index.serve()
            keep(index, instance(1, 1, 1 + len(name) + (name == "two")))
    first = migrate(tmp_path / "one", "data", storage.url, index=url)
    assert (1, 1, False) == (first.objects, first.elsewhere, first.switched)
    second = migrate(tmp_path / "two", "data", storage.url, index=url)
    assert (2, 0, True) == (second.objects, second.elsewhere, second.switched)
    with Index(tmp_path / "one", storage, url) as index:
        assert 2 == len(index._database.rows(Instance.select(Instance.path)))
        assert not [one for one in index.verify(grace=0) if "object" in str(one.kind).lower()]
    assert 2 == reindex(tmp_path / "one", storage, url, FhirSettings()).instances
    with pytest.raises(DatabaseFault, match="TO: the index has 2 data directories"):
        migrate(tmp_path / "one", storage.url, "data", index=url)
    drop_database(postgresql_server, "storages")


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_the_commands_of_a_backup_make_a_whole(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, names = IndexSettings(), ("backed", "restored")
    if engine == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        url, restored = (IndexSettings(url=SecretStr(create_database(server, name))) for name in names)
    else:
        server, restored = "", IndexSettings()
    with Index(tmp_path / "data", shared(tmp_path), url, joins=True) as index:
        index.serve()
        keep(index, instance())
        keep(index, instance(StudyDescription="Other"))
        with pytest.raises(DatabaseFault, match=r"storage\.url") as fault:
            index.backup(tmp_path / "backup")
    new = {"NEW_DATA": tmp_path / "new", "NEW_FOLDER": tmp_path / "store"}
    if server:
        new["NEW_URL"] = restored.url.get_secret_value()
    commands = [note.strip() for note in fault.value.__notes__ if note.startswith("    ")]
    for command in commands[:-1]:
        filled = re.sub("|".join(new), lambda name: str(new[name[0]]), command)
        subprocess.run(["bash", "-e", "-c", filled], check=True)
    assert commands[-1].endswith("imagingstudyd verify --repair --data NEW_DATA")
    storage = STORAGE.model_copy(update={"url": f"file://{tmp_path}/store"})
    with Index(tmp_path / "new", storage, restored) as index:
        assert {True} >= {found.mended for found in index.verify(grace=0, repair=True)}
        assert [] == list(index.verify(grace=0))
        assert 1 == len(index._objects.kept_aside())
    for name in names if server else ():
        drop_database(server, name)
