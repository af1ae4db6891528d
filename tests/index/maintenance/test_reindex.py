"""The index made anew from the objects: the same resources, and what only the old index knew."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from index import DatabaseFault, FhirSettings, Index, IndexSettings, Locked, Origin, Rebuilt, reindex
from index.database.connection import Database
from index.database.instance_rows import InstanceRows
from index.database.tables import Conflict, Instance, Source, Study
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep

pytestmark = pytest.mark.sqlite

SCANNER = Origin("CT7", "ARCHIVE", "10.1.2.3", "a")


def fill(data: Path) -> dict[str, bytes]:
    """Studies of two series, a conflict, a deletion; return the resources."""
    with Index(data, STORAGE) as index:
        for study in (2, 1, 3):
            for number in (2, 1, 3):
                for series in (1, 2):
                    keep(index, instance(study, series, number), SCANNER)
        keep(index, instance(1, 1, 1, StudyDescription="another"))
        index.publish()
        index.delete(f"{ROOT}.3")
        index.publish()
    return files(data / "fhir")


def again(data: Path, **options: object) -> Rebuilt:
    return reindex(data, STORAGE, IndexSettings(), FhirSettings(), **options)


def known(data: Path) -> list[tuple[object, ...]]:
    """What the index knows of instances, in their order of arrival."""
    with Index(data, STORAGE) as index:
        query = Instance.select(
            Instance.uid, Instance.path, Instance.sha1, Instance.received, Source.calling_aet
        )
        return index._database.rows(query.join(Source).order_by(Instance.id))


def feed(data: Path) -> list[object]:
    with Index(data, STORAGE) as index:
        return list(index.changes())


def test_resources_are_the_same_and_nothing_is_forgotten(tmp_path: Path) -> None:
    before = fill(tmp_path)
    rows, told = known(tmp_path), feed(tmp_path)
    done: list[int] = []
    rebuilt = again(tmp_path, progress=done.append)
    assert (12, [], [], "", [12]) == (
        rebuilt.instances,
        rebuilt.missing,
        rebuilt.not_indexed,
        rebuilt.lost,
        done,
    )
    assert before == files(tmp_path / "fhir")
    assert (rows, told) == (known(tmp_path), feed(tmp_path))
    with Index(tmp_path, STORAGE) as index:
        assert [] == list(index.verify(grace=0))
        assert [f"{ROOT}.2", f"{ROOT}.1"] == [study["uid"] for study in index.studies()]
        assert 1 == len(index._database.rows(Conflict.select(Conflict.id)))
    assert {"index.sqlite"} == {path.name for path in tmp_path.glob("index.sqlite*")}


def test_what_is_remembered_of_rows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches: the rows of a series are found once, and kept no longer than the rest."""
    before, made, begin = fill(tmp_path), [], InstanceRows.__init__

    def noted(self: InstanceRows, database: Database) -> None:
        made.append(self)
        begin(self, database)

    monkeypatch.setattr(InstanceRows, "__init__", noted)
    monkeypatch.setattr("index.database.instance_rows.PLACES", 1)
    monkeypatch.setattr("index.maintenance.rebuild.BATCH", 2)
    again(tmp_path)
    assert before == files(tmp_path / "fhir")
    assert {0} == {len(rows._fresh) for rows in made}
    # There are four series; a batch may bring two more than the limit.
    assert 3 >= max(len(rows._places) for rows in made) > 0
    with Index(tmp_path, STORAGE) as index:
        assert [] == list(index.verify(grace=0))


def lose(data: Path) -> None:
    for path in data.glob("index.sqlite*"):
        path.unlink()


def damage(data: Path) -> None:
    content = bytearray((data / "index.sqlite").read_bytes())
    content[4096 * 3 : 4096 * 20] = bytes(4096 * 17)
    (data / "index.sqlite").write_bytes(content)


def garble(data: Path) -> None:
    (data / "index.sqlite").write_bytes(b"no database at all" * 1000)


@pytest.mark.parametrize(
    ("how", "said"), [(lose, "is not there"), (damage, "is damaged"), (garble, "is damaged")]
)
def test_without_the_old_index_the_resources_are_the_same(
    tmp_path: Path, how: Callable[[Path], None], said: str
) -> None:
    before = fill(tmp_path)
    rows = known(tmp_path)
    how(tmp_path)
    assert said in again(tmp_path).lost
    assert before == files(tmp_path / "fhir")
    assert [row[:3] for row in rows] == [row[:3] for row in known(tmp_path)]
    with Index(tmp_path, STORAGE) as index:
        assert [] == list(index.verify(grace=0))
        assert 1 == len(index._database.rows(Conflict.select(Conflict.id)))
    assert (how is lose) == (not (tmp_path / "index.sqlite.damaged").exists())


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rows = fill(tmp_path), known(tmp_path)
    monkeypatch.setattr("index.maintenance.rebuild.BATCH", 5)

    seen: list[int] = []

    def stop(more: int) -> None:
        seen.append(more)
        if sum(seen) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(tmp_path, progress=stop)
    assert rows == known(tmp_path), "the old index is in its place"
    done: list[int] = []
    rebuilt = again(tmp_path, progress=done.append)
    assert (10, 12, [2]) == (rebuilt.resumed_at, rebuilt.instances, done)
    assert (before, rows) == (files(tmp_path / "fhir"), known(tmp_path))


def test_an_interrupted_run_begins_again_where_something_came_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    monkeypatch.setattr("index.maintenance.rebuild.BATCH", 5)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(tmp_path, progress=stop)
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance(4))
        index.publish()
    assert (0, 13) == ((rebuilt := again(tmp_path)).resumed_at, rebuilt.instances)


def test_objects_that_are_missing_unreadable_or_new(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "objects/000000/000.dcm").unlink()
    (tmp_path / "objects/000000/001.dcm").write_bytes(b"nothing")
    (tmp_path / "objects/000000/0ff.dcm").write_bytes((tmp_path / "objects/000000/002.dcm").read_bytes())
    rebuilt = again(tmp_path)
    assert (10, ["objects/000000/000.dcm"]) == (rebuilt.instances, rebuilt.missing)
    assert ["objects/000000/001.dcm", "objects/000000/0ff.dcm"] == [path for path, _ in rebuilt.not_indexed]
    with Index(tmp_path, STORAGE) as index:
        assert 10 == sum(study["instances"] for study in index.studies())


def test_not_while_the_index_is_in_use(tmp_path: Path) -> None:
    fill(tmp_path)
    with Index(tmp_path, STORAGE) as index, pytest.raises(Locked, match="in use by another command"):
        again(index.data)
    index = Index(tmp_path, STORAGE)
    index.serve()
    with pytest.raises(Locked, match="running imagingstudyd"):
        again(tmp_path)
    index.close()
    assert 12 == again(tmp_path).instances


def test_a_newer_database_is_not_touched(tmp_path: Path) -> None:
    fill(tmp_path)
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("INSERT INTO schema_version VALUES (9999)")
    connection.close()
    before = (tmp_path / "index.sqlite").read_bytes()
    with pytest.raises(DatabaseFault, match="newer"):
        again(tmp_path)
    assert before == (tmp_path / "index.sqlite").read_bytes()


def test_tombstones_stay(tmp_path: Path) -> None:
    settings = FhirSettings(withdrawn="entered-in-error")
    fill(tmp_path)
    with Index(tmp_path, STORAGE, fhir=settings) as index:
        index.delete(f"{ROOT}.1")
        index.publish()
    before = files(tmp_path / "fhir")
    reindex(tmp_path, STORAGE, IndexSettings(), settings)
    assert before == files(tmp_path / "fhir")
    with Index(tmp_path, STORAGE, fhir=settings) as index:
        assert [] == list(index.verify(grace=0))
        assert 2 == len(index._database.rows(Study.select(Study.id).where(Study.withdrawn == 1)))
