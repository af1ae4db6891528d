"""Resources stand in the index, with their contents; those of an earlier version are brought in."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import FhirSettings, Index
from index.database.connection import Database
from index.database.tables import Resource, ResourceContent
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep

R4 = FhirSettings(versions=("r4",))
STUDY = ("r4", "ImagingStudy", f"{ROOT}.1")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE, fhir=R4) as index:
        yield index


def contents(index: Index) -> dict[str, bytes]:
    """The content of each live resource, by the path of its file."""
    keys = Resource.select(Resource.fhir, Resource.type, Resource.name).where(Resource.deleted == 0)
    found = {}
    for fhir, kind, name in index._database.rows(keys):
        resource = index.resources.read(fhir, kind, name)
        assert resource is not None
        found[f"{fhir}/{kind}/{name}.json"] = resource.content
    return found


def without_contents(database: Database) -> None:
    """As an earlier version left it."""
    with database.writing():
        database.execute(ResourceContent.delete())
        database.execute(Resource.update(size=0))


def test_what_stands_in_the_index_is_what_the_files_have(index: Index) -> None:
    for study in (1, 2):
        keep(index, instance(study))
        index.publish()
    assert files(index.data / "fhir") == contents(index)
    last = index.resources.history(*STUDY)[-1]
    found = index.resources.read(*STUDY)
    assert found is not None
    assert (*STUDY, 1, last.at, False) == (
        found.fhir, found.type, found.name, found.version, found.changed, found.deleted,
    )  # fmt: skip
    assert gzip.decompress(found.gzipped) == index.resource(f"{ROOT}.1", "r4")[0]
    assert None is index.resources.read("r4", "ImagingStudy", "1.2.3")
    assert [] == index.resources.history("r4", "ImagingStudy", "1.2.3")


def test_a_deleted_resource_has_a_version_and_no_content(index: Index) -> None:
    keep(index, instance())
    index.publish()
    index.delete(f"{ROOT}.1")
    index.publish()
    found = index.resources.read(*STUDY)
    assert found is not None
    assert (2, True, b"", b"") == (found.version, found.deleted, found.gzipped, found.content)
    history = index.resources.history(*STUDY)
    assert [("created", 1), ("deleted", 2)] == [(entry.change, entry.version) for entry in history]
    assert found.changed == history[-1].at
    assert [] == index._database.rows(ResourceContent.select(ResourceContent.id))


def test_the_feed_tells_of_a_study_after_what_it_refers_to(index: Index) -> None:
    keep(index, instance())
    index.publish()
    index.delete(f"{ROOT}.1")
    index.publish()
    told = [(entry.change, entry.type) for entry in index.changes()]
    assert [
        ("created", "Patient"), ("created", "ImagingStudy"),
        ("deleted", "ImagingStudy"), ("deleted", "Patient"),
    ] == [one for one in told if one[1] in ("Patient", "ImagingStudy")]  # fmt: skip


def test_contents_of_an_earlier_version_come_into_the_index(tmp_path: Path) -> None:
    """No version and no entry of the feed comes of it; meanwhile the files are read."""
    with Index(tmp_path, STORAGE, fhir=R4) as index:
        for study in range(1, 26):
            keep(index, instance(study))
        index.publish()
        expected, feed = files(tmp_path / "fhir"), list(index.changes())
        without_contents(index._database)
        assert expected == contents(index)
    with Index(tmp_path, STORAGE, fhir=R4) as index:
        index.serve()
        empty = Resource.select(Resource.id).where((Resource.size == 0) & (Resource.deleted == 0))
        assert eventually(lambda: not index._database.rows(empty))
        (tmp_path / "fhir").rename(tmp_path / "elsewhere")
        assert expected == contents(index)
        assert feed == list(index.changes())


@pytest.mark.sqlite
def test_what_an_index_without_contents_lacks_is_found_by_its_own_index(index: Index) -> None:
    """At each start of a daemon; without it every resource would be read."""
    query = "SELECT id FROM resource WHERE size = 0 AND deleted = 0 AND id > 5"
    with index._database.connection():
        plan = index._database.peewee.execute_sql(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "resource_without_content" in str(plan)
