"""The list of studies: filters and orders by SQL and by Python alike, in both engines; what has changed."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from peewee import SQL
from pydantic import SecretStr

from index import Index, IndexSettings, NotKept, StudyFilter
from index.database.connection import Database
from index.database.tables import Study, StudyListing, StudyTerm
from index.publication import search
from index.publication.listing import as_they_are, from_row, outdated_queries, save
from index.publication.study_rows import Summary
from index.query.study_filter import SORTS
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep
from support.postgresql import server

NAMES = ["Müller^Hans", "MULLER^Eva", "Yamada^Tarou=山田^太郎", "O'Neil^%_[x]", "Łódź", "", "Zoë^\\"]
NUMBERS = ["A1", "a1", "A_1", "A%1", "[A]1", ""]
DATES = ["20200101", "20200102", "19991231", ""]
MODALITIES = ["CT", "MR", "US"]
FILTERS: list[dict[str, str]] = [
    {},
    {"name": "muller"},
    {"name": "M*"},
    {"name": "山田"},
    {"name": "o'neil^%_[x]"},
    {"name": "*[x]"},
    {"name": "zoe^\\"},
    {"name": "nobody"},
    {"patient": "A1"},
    {"patient": "A?1"},
    {"patient": "[A]*"},
    {"patient": "*"},
    {"accession": "*1"},
    {"modality": "ct"},
    {"modality": "M*"},
    {"since": "2020-01-01"},
    {"until": "2020-01-01"},
    {"since": "20200101", "until": "20200101", "modality": "CT"},
    {"name": "*", "patient": "A*", "modality": "CT"},
    {"state": "registered"},
    {"text": "mull hans"},
    {"text": "a1"},
    {"text": "*ller"},
    {"text": "山 a"},
    {"text": f"{ROOT}.1"},
    {"text": "nobody at all"},
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index of 60 studies that are published, of which some have changed since."""
    chosen = IndexSettings()
    if request.param == "postgresql":
        chosen = IndexSettings(url=SecretStr(request.getfixturevalue("url")))
    pick = random.Random(1)
    with Index(tmp_path_factory.mktemp(request.param), STORAGE, chosen) as index:

        def send(study: int, number: int) -> None:
            header = {
                "PatientName": pick.choice(NAMES),
                "PatientID": pick.choice(NUMBERS),
                "AccessionNumber": pick.choice(NUMBERS),
                "StudyDate": pick.choice(DATES),
                "Modality": pick.choice(MODALITIES),
            }
            header["SpecificCharacterSet"] = "ISO_IR 192"
            keep(index, instance(study, number, 1, **header))

        for study in range(1, 61):
            send(study, 1)
        index.publish()
        for study in range(1, 61, 9):
            send(study, 2)
        send(61, 1)
        yield index


@pytest.mark.parametrize("asked", FILTERS, ids=str)
@pytest.mark.parametrize("few", [0, 1000])
def test_rows_and_what_has_changed_are_found_alike(
    filled: Index, asked: dict[str, str], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pages in order, by the ids of few, and without any row: the same studies in the same order."""
    monkeypatch.setattr(search, "FEW", few)
    monkeypatch.setattr(search, "FIRST_PAGE", 3)
    monkeypatch.setattr(search, "PAGE", 7)
    database = filled._database
    every = as_they_are(database, [study for (study,) in database.rows(Study.select(Study.id))])
    for sort in (*SORTS, *(f"-{sort}" for sort in SORTS)):
        wanted = StudyFilter(**asked, sort=sort)
        key = search.position(wanted)
        expected = sorted(
            (one for one in every if search._fits(one, wanted)), key=key, reverse=sort.startswith("-")
        )
        assert expected == list(search.find(database, wanted)), sort
        if len(expected) > 1:
            assert expected[1:] == list(search.find(database, wanted, key(expected[0]))), sort


def test_the_list_is_that_of_the_rows(filled: Index) -> None:
    """Without any row the list is what the rows make it."""
    assert 61 == len(filled.studies())
    assert 2 == next(one for one in filled.studies() if one["uid"] == f"{ROOT}.10")["series"]
    assert {"CT", "MR", "US"} >= {modality for one in filled.studies() for modality in one["modalities"]}


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{sort}" for sort in SORTS)])
@pytest.mark.parametrize("behind", [False, True])
def test_a_page_reads_one_index_in_its_order(filled: Index, sort: str, *, behind: bool) -> None:
    database = filled._database
    wanted = StudyFilter(sort=sort, patient="A*", name="m*", modality="CT", since="20000101")
    last = next(iter(as_they_are(database, [1]))) if behind else None
    plan = explain(database, search.page(database, wanted, last and search.position(wanted)(last)))
    assert not [line for line in plan if "SCAN" in line or "Seq Scan" in line], plan
    if database.is_sqlite:
        assert not [line for line in plan if "TEMP B-TREE" in line], plan


@pytest.mark.parametrize("asked", [one for one in FILTERS if one and "state" not in one], ids=str)
def test_few_are_found_by_an_index(filled: Index, asked: dict[str, str]) -> None:
    database = filled._database
    for query in itertools.chain(*search._by_value(database, StudyFilter(**asked))):
        plan = explain(database, query.limit(search.FEW + 1))
        assert not [line for line in plan if "SCAN" in line or "Seq Scan" in line], plan


def test_retention_reads_an_index(filled: Index) -> None:
    """The pages in the order of reception are above; the bytes of all studies stand in that index."""
    database = filled._database
    plan = explain(database, search.sum_of_bytes())
    assert not [line for line in plan if "SCAN" in line or "Seq Scan" in line], plan
    if database.is_sqlite:
        assert ["SEARCH t1 USING COVERING INDEX study_listing_received (state=?)"] == [
            line.replace('"t1"', "t1") for line in plan
        ]
    sizes = [one.bytes for one in search.find(database, StudyFilter())]
    assert (
        sum(sizes)
        == search.total_bytes(database)
        == sum(path.stat().st_size for path in (filled.data / "objects").rglob("*.dcm"))
    )


def test_what_has_changed_is_found_without_what_has_not(filled: Index) -> None:
    for query in outdated_queries():
        plan = explain(filled._database, query)
        read = [line for line in plan if "SCAN" in line or " Scan" in line]
        partial = ("study_unpublished", "study_listing_to_make", "study_listing_pkey", "Bitmap Heap Scan")
        assert not [line for line in read if not any(name in line for name in partial)], plan


def explain(database: Database, query: Any) -> list[str]:
    """Return the lines of the engine's plan; PostgreSQL takes an index where it can."""
    sql, values = query.bind(database.peewee).sql()
    with database.connection(), database.peewee.atomic():
        if database.is_sqlite:
            return [row[3] for row in database.peewee.execute_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
        database.peewee.execute_sql("SET LOCAL enable_seqscan = off")
        return [row[0] for row in database.peewee.execute_sql(f"EXPLAIN {sql}", values)]


def test_a_study_that_is_not_published_is_listed_as_it_is(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance(1, 1, 1, PatientName="Old"))
        assert [1] == [one["instances"] for one in index.studies()]
        index.publish()
        for number in (2, 3):
            keep(index, instance(1, 1, number, PatientName="New"))
        assert [3] == [one["instances"] for one in index.find_studies(StudyFilter(name="new"))]
        assert [] == list(index.find_studies(StudyFilter(name="old")))
        index.delete(f"{ROOT}.1")
        assert [] == index.studies()
        assert [] == index._database.rows(StudyListing.select()) + index._database.rows(StudyTerm.select())
        index.publish()
        assert [] == index._database.rows(StudyListing.select())


@pytest.mark.parametrize("full", [False, True])
def test_of_many_changed_studies_the_rows_are_made_first(
    tmp_path: Path, *, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "CHANGED", 2)
    with Index(tmp_path, STORAGE) as index:
        for study in range(1, 6):
            keep(index, instance(study))
        if full:

            def fails(*_: object) -> None:
                raise NotKept("disk full")

            monkeypatch.setattr(search, "bring_up_to_date", fails)
        assert [f"{ROOT}.{study}" for study in range(1, 6)] == [one["uid"] for one in index.studies()]
        made = index._database.rows(StudyListing.select(StudyListing.id))
        assert (0 if full else 5) == len(made)
        assert 5 == index.publish()


def test_a_row_of_a_later_revision_stays(tmp_path: Path) -> None:
    """Another process read the study before, and writes after the publisher."""
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance(1))
        before = as_they_are(index._database, [1])
        keep(index, instance(1, 2))
        index.publish()
        with index._database.writing():
            save(index._database, before)
        assert [2] == [one["series"] for one in index.studies()]


def test_a_row_holds_what_is_listed(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance(1, PatientID="P\\Q"))
        index.publish()
        (row,) = index._database.rows(StudyListing.select(*search.ROW))
        listed = from_row(row)
        assert as_they_are(index._database, [1]) == [listed]
        assert asdict(listed.summary) == index.studies()[0]
        assert list(Summary.__dataclass_fields__) == list(index.studies()[0])


def test_rows_that_a_migration_left_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index(tmp_path, STORAGE) as index:
        for study in (1, 2, 3):
            keep(index, instance(study))
        index.publish()
        expected = index.studies()
        with index._database.writing():
            index._database.execute(
                StudyListing.update(revision=-1, state="", details={}).where(SQL("1 = 1"))
            )
            index._database.execute(StudyTerm.delete())
        assert expected == index.studies()
        monkeypatch.setattr(search, "CHANGED", 1)
        assert expected == index.studies()
        assert [] == search.outdated(index._database)
        assert 9 == len(index._database.rows(StudyTerm.select()))
