"""`verify` finds every kind of damage, mends what can be mended, and says what cannot."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peewee import fn

from index import Finding, Index
from index.database.instance_rows import InstanceRows
from index.database.tables import (
    Conflict,
    Instance,
    Resource,
    Series,
    SeriesVariant,
    Study,
    StudyResource,
    StudyVariant,
)
from index.maintenance.verify import objects as objects_module
from support.dicom import ROOT, instance, save
from support.filling import STORAGE, files, keep

R4 = f"fhir/r4/ImagingStudy/{ROOT}.1.json"
FIRST = "objects/000000/000.dcm"
LAST = "objects/000000/00b.dcm"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "data", STORAGE)
    for study in (1, 2):
        for series in (1, 2):
            for number in (1, 2, 3):
                keep(index, instance(study, series, number))
    keep(index, instance(1, 1, 1, StudyDescription="another"))
    index.publish()
    assert [] == verify(index)
    yield index
    index.close()


def verify(index: Index, *, repair: bool = False) -> list[Finding]:
    return list(index.verify(repair=repair, grace=0))


def change(query: object) -> Callable[[Index], None]:
    """Damage rows as no program of ours would."""

    def damage(index: Index) -> None:
        unchecked, checked = (
            ("PRAGMA foreign_keys = 0", "PRAGMA foreign_keys = 1")
            if index._database.is_sqlite
            else ("SET session_replication_role = replica", "SET session_replication_role = origin")
        )
        with index._database.connection():
            index._database.peewee.execute_sql(unchecked)
            index._database.execute(query)
            index._database.peewee.execute_sql(checked)

    return damage


def write(path: str, content: bytes) -> Callable[[Index], None]:
    return lambda index: (index.data / path).write_bytes(content) and None


def remove(path: str) -> Callable[[Index], None]:
    return lambda index: (index.data / path).unlink()


def lose_a_row(index: Index) -> None:
    """The last object's row, as if the commit had never been."""
    rows = index._database.rows(Instance.select(Instance.id).where(Instance.path == LAST))
    with index._database.writing():
        InstanceRows(index._database).remove(rows[0][0])
    index.publish()


def lose_an_object_to_conflicts(index: Index) -> None:
    """A row's object is gone; an equal one was kept aside."""
    ((sha1,),) = index._database.rows(Instance.select(Instance.sha1).where(Instance.path == FIRST))
    (index.data / FIRST).rename(index.data / f"conflicts/{sha1}.dcm")


def truncate_with_a_copy(index: Index) -> None:
    """An object is cut short; an equal one stands where no row knows it."""
    content = (index.data / FIRST).read_bytes()
    (index.data / "objects/000000/0ff.dcm").write_bytes(content)
    (index.data / FIRST).write_bytes(content[:500])


def move_an_object(index: Index) -> None:
    (index.data / FIRST).rename(index.data / "objects/000000/0ff.dcm")


def lose_a_conflicts_row(index: Index) -> None:
    index._database.execute(Conflict.delete())


def leave_a_deletion_unfinished(index: Index) -> None:
    index._deletion.finish = int  # type: ignore[method-assign]  # as if the process had ended here
    index.delete(f"{ROOT}.2")
    del index._deletion.finish
    index.publish()


DAMAGES: dict[str, tuple[Callable[[Index], object], set[str]]] = {
    "resource missing": (remove(R4), {"resource-missing"}),
    "resource altered": (write(R4, b"{}"), {"resource-altered"}),
    "resource truncated": (write(R4, b""), {"resource-altered"}),
    "resource of no study": (write("fhir/r4/ImagingStudy/1.2.3.json", b"{}"), {"resource-stray"}),
    "resource unrecorded": (
        lambda index: (
            [change(table.delete())(index) for table in (StudyResource, Resource)] and remove(R4)(index)
        ),
        {"resource-missing", "resource-unrecorded"},
    ),
    "counts of a study": (
        change(Study.update(instance_count=99, series_count=7).where(Study.id == 1)),
        {"study-count"},
    ),
    "counts of a series": (change(Series.update(instance_count=2)), {"series-count"}),
    "counts of a study's variants": (change(StudyVariant.update(instance_count=1)), {"variant-count"}),
    "counts of a series' variants": (change(SeriesVariant.update(instance_count=5)), {"variant-count"}),
    "object without a row": (lose_a_row, {"object-without-row"}),
    "object moved": (move_an_object, {"object-without-row"}),
    "object lost to conflicts": (lose_an_object_to_conflicts, {"object-missing", "conflict-without-row"}),
    "object truncated": (truncate_with_a_copy, {"object-without-row", "object-corrupt"}),
    "conflict without a row": (lose_a_conflicts_row, {"conflict-without-row"}),
    "row of a conflict without its file": (
        lambda index: [path.unlink() for path in (index.data / "conflicts").iterdir()],
        {"conflict-missing"},
    ),
    "row with other attributes": (
        change(Instance.update(attributes={"InstanceNumber": "77"}).where(Instance.id == 1)),
        {"row-differs"},
    ),
    "row of another series": (
        change(Instance.update(series=Series.select(fn.MAX(Series.id))).where(Instance.id == 1)),
        {"row-differs", "series-count", "study-count"},
    ),
    "row that refers to nothing": (
        change(Instance.update(study_variant=99).where(Instance.id == 1)),
        {"row-broken", "variant-count"},
    ),
    "series gone": (change(Series.delete().where(Series.id == 1)), {"row-broken", "study-count"}),
    "left in incoming": (write("incoming/4000000-1", b"half"), {"leftover"}),
    "temporary file": (write("fhir/r4/Patient/.a.json.4000000.tmp", b"half"), {"leftover"}),
    "study not published": (change(Study.update(published=0)), {"study-unpublished"}),
    "deletion not finished": (leave_a_deletion_unfinished, {"deletion-unfinished"}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_mended(index: Index, damage: str) -> None:
    provoke, kinds = DAMAGES[damage]
    before = files(index.data / "fhir")
    provoke(index)
    there = files(index.data)
    found = verify(index)
    assert kinds <= {str(one.kind) for one in found}
    assert not any(one.mended for one in found)
    there_still = files(index.data)
    for state in (there, there_still):
        for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "lock"):
            state.pop(name, None)
    assert there == there_still, "looking changes nothing"

    mended = verify(index, repair=True)
    assert all(one.mended for one in mended), mended
    assert [] == verify(index)
    if damage != "deletion not finished":
        assert before == files(index.data / "fhir")
        assert [(2, 6), (2, 6)] == [(study["series"], study["instances"]) for study in index.studies()]
        assert 12 == len(files(index.data / "objects"))


def garble(index: Index) -> None:
    content = bytearray((index.data / FIRST).read_bytes())
    content[-1] ^= 1
    (index.data / FIRST).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(remove(FIRST), "object-missing"), (write(FIRST, b"x"), "object-corrupt"), (garble, "object-corrupt")],
)
def test_what_cannot_be_mended_is_named(index: Index, damage: Callable[[Index], object], kind: str) -> None:
    ((sha1, size),) = index._database.rows(
        Instance.select(Instance.sha1, Instance.size).where(Instance.path == FIRST)
    )
    damage(index)
    (found,) = verify(index, repair=True)
    assert (kind, f"{ROOT}.1.1.1", FIRST, False) == (found.kind, found.what, found.path, found.mended)
    assert sha1 in found.detail
    if kind == "object-missing":
        assert f"expected {size} bytes" in found.detail


def test_what_is_no_dicom_stays_and_is_named(index: Index) -> None:
    (index.data / "objects/000000/0ff.dcm").write_bytes(b"no DICOM")
    (found,) = verify(index, repair=True)
    assert ("object-without-row", False) == (found.kind, found.mended)
    assert (index.data / found.path).exists()


def test_what_is_not_ours_does_not_stop_it(index: Index) -> None:
    (index.data / "objects/lost+found").mkdir()
    (index.data / "objects/.DS_Store").touch()
    assert [] == verify(index, repair=True)


def test_what_is_young_may_be_on_its_way(index: Index) -> None:
    lose_a_row(index)
    assert [] == list(index.verify(repair=True))


def test_reading_is_kept_below_a_rate(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("index.maintenance.verify.context.time.sleep", slept.append)
    size = sum(path.stat().st_size for path in (index.data / "objects/000000").iterdir())
    list(index.verify(rate=size / 10))
    assert max(slept) > 8


def test_an_instance_that_comes_while_its_object_is_sought(index: Index, tmp_path: Path) -> None:
    """Import beside verify."""
    save(instance(3), tmp_path / "one.dcm")
    found = index.verify(grace=0)
    index.import_files([tmp_path / "one.dcm"])
    assert ["study-unpublished"] == [str(one.kind) for one in found]


@pytest.mark.parametrize("late_rows", [0, 10_000])
def test_what_is_received_while_objects_are_listed_is_no_orphan(
    index: Index, late_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are looked at before the files, and those that are new once more behind them."""
    monkeypatch.setattr(objects_module, "LATE_ROWS", late_rows)
    monkeypatch.setattr(objects_module, "PAGE", 2)
    listed = index._objects.filed_since
    new = iter(range(100, 105))

    def while_receiving(*arguments: Any, **options: Any) -> Iterator[str]:
        for number in new:
            keep(index, instance(1, 1, number))
        yield from listed(*arguments, **options)

    monkeypatch.setattr(index._objects, "filed_since", while_receiving)
    assert [] == [found for found in verify(index) if found.path.startswith("objects/")]
