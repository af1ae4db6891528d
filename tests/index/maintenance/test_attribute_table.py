"""The index remembers with which attribute table its rows were made (index/dicom/attributes.py)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydicom.datadict import tag_for_keyword

from index import FhirSettings, Finding, Index, IndexSettings, outdated_instances, reindex
from index.database.attribute_tables import note_current, outdated
from index.database.tables import AttributeTable, Instance, Series, SeriesVariant
from index.dicom import attributes
from index.dicom.attributes import WANTED, table_digest
from scp.daemon.checks import find_warnings
from scp.settings.file import load
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep, keep_by_threads
from support.postgresql import server

pytestmark = pytest.mark.sqlite

PROTOCOL = tag_for_keyword("ProtocolName")
NUMBER = tag_for_keyword("InstanceNumber")
SETTINGS = STORAGE, IndexSettings(), FhirSettings()


def fill(data: Path, *studies: int) -> None:
    """Add studies of three instances. A thread of its own reads them: threads remember the table."""
    datasets = [
        instance(study, 1, number, ProtocolName="HEAD", SeriesDescription=str(number))
        for study in studies
        for number in (3, 1, 2)
    ]
    with Index(data, STORAGE) as index:
        keep_by_threads(index, datasets, threads=1)
        index.publish()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of six instances that were read when ProtocolName was not in the table yet."""
    with monkeypatch.context() as older:
        older.delitem(WANTED, PROTOCOL)
        fill(tmp_path, 1, 2)
    return tmp_path


def verify(data: Path, *, repair: bool = False) -> list[Finding]:
    with Index(data, STORAGE) as index:
        return list(index.verify(repair=repair, grace=0))


def protocols(data: Path) -> list[str | None]:
    with Index(data, STORAGE) as index:
        query = Instance.select(SeriesVariant.attributes).join(SeriesVariant).order_by(Instance.id)
        return [said.get("ProtocolName") for (said,) in index._database.rows(query)]


def arrived(data: Path) -> list[tuple[object, ...]]:
    with Index(data, STORAGE) as index:
        query = Instance.select(Instance.id, Instance.uid, Instance.path, Instance.received)
        return index._database.rows(query.order_by(Instance.id))


def test_verify_has_one_finding_and_repair_reads_the_instances_again(data: Path) -> None:
    before, resources = arrived(data), files(data / "fhir")
    for _ in range(2):
        (found,) = verify(data)
        assert ("attributes-outdated", False) == (found.kind, found.mended)
        assert "6 instances" in found.detail
        assert "run `imagingstudyd reindex` or `imagingstudyd verify --repair`" in found.detail
    assert [None] * 6 == protocols(data), "looking changes nothing"

    (found,) = verify(data, repair=True)
    assert ("attributes-outdated", True) == (found.kind, found.mended)
    assert [] == verify(data)
    assert ["HEAD"] * 6 == protocols(data)
    assert (before, resources) == (arrived(data), files(data / "fhir"))


def test_reindex_reads_the_instances_again(data: Path) -> None:
    assert 6 == reindex(data, *SETTINGS).instances
    assert ["HEAD"] * 6 == protocols(data)
    assert [] == verify(data)


def test_check_says_it_until_it_is_done(data: Path) -> None:
    configuration = load(None, {"storage": {"path": str(data)}})

    def said() -> list[str]:
        return [line for line in find_warnings(configuration) if "attribute table" in line]

    assert ["6 instances were read with another attribute table: run `imagingstudyd reindex`"] == said()
    reindex(data, *SETTINGS)
    assert [] == said()


@pytest.mark.parametrize("name", ["nothing", "no database"])
def test_check_makes_no_index_and_survives_a_broken_one(tmp_path: Path, name: str) -> None:
    if name == "no database":
        (tmp_path / "index.sqlite").write_bytes(b"no database" * 1000)
    before = files(tmp_path)
    assert 0 == outdated_instances(tmp_path, IndexSettings())
    assert before == files(tmp_path)


def test_what_arrives_later_is_compared_as_ever(data: Path) -> None:
    fill(data, 3)
    (found,) = verify(data)
    assert "6 instances" in found.detail
    with Index(data, STORAGE) as index:
        index._database.execute(Instance.update(attributes={"InstanceNumber": "77"}))
    kinds = [str(found.kind) for found in verify(data) if found.kind != "resource-altered"]
    assert ["attributes-outdated", *["row-differs"] * 3] == kinds


def test_of_older_rows_the_uids_are_compared(data: Path) -> None:
    with Index(data, STORAGE) as index:
        other = Series.select(Series.id).order_by(Series.id.desc()).limit(1)
        index._database.execute(Instance.update(series=other).where(Instance.id == 1))
    kinds = {str(found.kind) for found in verify(data)}
    assert kinds >= {"attributes-outdated", "row-differs"}


def test_an_index_without_the_table_was_made_by_an_older_version(data: Path) -> None:
    with Index(data, STORAGE) as index:
        index._database.peewee.execute_sql("DROP TABLE attribute_table")
        index._database.peewee.execute_sql("DELETE FROM schema_version WHERE version = 43")
    assert 6 == outdated_instances(data, IndexSettings())
    (found,) = verify(data)
    assert "6 instances" in found.detail
    verify(data, repair=True)
    assert [] == verify(data)


def test_a_deleted_or_unreadable_instance_stays_as_it_is(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from index.maintenance.verify import rereading

    read = rereading._read_objects

    with Index(data, STORAGE) as index:

        def deleted_meanwhile(*arguments: object) -> object:
            found = read(*arguments)
            index.delete(f"{ROOT}.1")
            return found

        monkeypatch.setattr(rereading, "_read_objects", deleted_meanwhile)
        (index.data / "objects/000000/003.dcm").write_bytes(b"cut")
        kinds = {(str(found.kind), found.mended) for found in index.verify(repair=True, grace=0)}
        assert kinds >= {("attributes-outdated", True), ("object-corrupt", False)}
        assert [(f"{ROOT}.2", 3)] == [(study["uid"], study["instances"]) for study in index.studies()]


def test_versions_that_take_turns(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older, newer and older again: each knows which rows are its own."""
    fill(data, 3)
    with monkeypatch.context() as older:
        older.delitem(WANTED, PROTOCOL)
        fill(data, 4)
        with Index(data, STORAGE) as index:
            assert [(7, 10)] == [one for one in outdated(index._database) if one != (0, 1)]
    with Index(data, STORAGE) as index:
        assert [(1, 7), (10, 13)] == [one for one in outdated(index._database) if one != (0, 1)]
        assert "9 instances" in next(index.verify(grace=0)).detail


def test_a_running_daemon_names_the_table_of_its_rows(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.delitem(WANTED, PROTOCOL)
        daemon = Index(data, STORAGE)
        daemon.serve()
    assert "6 instances" in verify(data)[0].detail
    keep(daemon, instance(3))
    daemon.close()
    assert 7 == outdated_instances(data, IndexSettings())


def test_an_interrupted_reindex_of_an_older_version_begins_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.maintenance.rebuild.BATCH", 2)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as older:
        older.delitem(WANTED, PROTOCOL)
        with pytest.raises(KeyboardInterrupt):
            reindex(data, *SETTINGS, stop)
    assert 0 == reindex(data, *SETTINGS).resumed_at
    assert ["HEAD"] * 6 == protocols(data)


def changes() -> Iterator[tuple[str, attributes.Attribute]]:
    protocol, requests = WANTED[PROTOCOL], WANTED[tag_for_keyword("RequestAttributesSequence")]
    yield "level", replace(protocol, levels=("study",))
    yield "VR", replace(protocol, vr="SH")
    yield "values", replace(protocol, many=True)
    yield "items", replace(requests, items={NUMBER: WANTED[NUMBER]})


@pytest.mark.parametrize(("what", "row"), list(changes()), ids=[what for what, _ in changes()])
def test_the_digest_follows_from_the_rows(
    what: str, row: attributes.Attribute, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table_digest()
    monkeypatch.setitem(WANTED, row.tag, row)
    assert before != table_digest(), what
    monkeypatch.undo()
    assert before == table_digest()


def test_the_same_in_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as url:
        settings = IndexSettings(url=SecretStr(url))
        with monkeypatch.context() as older, Index(tmp_path, STORAGE, settings) as index:
            older.delitem(WANTED, PROTOCOL)
            index._database.execute(AttributeTable.delete())
            note_current(index._database)
            keep_by_threads(index, [instance(1, 1, 1, ProtocolName="HEAD"), instance(2)], threads=1)
            index.publish()
        with Index(tmp_path, STORAGE, settings) as index:
            for repair in (False, True):
                (found,) = index.verify(repair=repair, grace=0)
                assert "2 instances" in found.detail
                assert repair or found.detail.endswith(
                    "`imagingstudyd reindex` or `imagingstudyd verify --repair`"
                )
                assert repair == found.mended
            assert [] == list(index.verify(grace=0))
