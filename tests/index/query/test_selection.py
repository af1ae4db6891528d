"""What SQL selects holds every match, on SQLite and PostgreSQL: compared with matching all entities."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from index import Index, IndexSettings
from index.database.connection import Database
from index.dicom.value_rules import stored_values
from index.query.entities import Entities
from index.query.identifier_matching import IdentifierMatcher
from index.query.information_models import Level, keys_down_to
from index.query.selection import EntitySelection
from support.dicom import instance
from support.filling import STORAGE, keep
from support.postgresql import server

UTF_8 = "ISO_IR 192"
NAMES = (
    "Doe^Jane", "DOE ^JANE", "Müller^Hänsel", "Mu\u0308ller", "Straße^Ann", "Strasse^Ann", "Łódź^İlhan",
    "O'Neil^A",
    "Yamada^Tarou=山田^太郎=やまだ^たろう", "=山田^太郎", "^Jane", "ﬁnn", "100%^Smith_Jones", "",
)  # fmt: skip
TEXTS = ("Head", "head", "Knee 50%_", "K[1]", "Ab\\*", "", "Grün", "A1", "A10", "B?")
DATES = ("20260102", "20260110", "20251231", "")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database of studies with every name, and of some whose instances disagree."""
    data = tmp_path_factory.mktemp("selection")
    if request.param == "sqlite":
        yield from filled(data, IndexSettings())
    else:
        with server() as url:
            yield from filled(data, IndexSettings(url=SecretStr(url)))


def filled(data: Path, settings: IndexSettings) -> Iterator[Database]:
    with Index(data, STORAGE, settings) as index:
        for number in range(40):
            values = {
                "SpecificCharacterSet": UTF_8,
                "PatientID": ("P1", "P2", "p2", "P*", "")[number % 5],
                "PatientName": NAMES[number % len(NAMES)],
                "StudyDate": DATES[number % 4],
                "StudyTime": ("081500", "12", "")[number % 3],
                "AccessionNumber": TEXTS[(number * 7) % len(TEXTS)].replace("\\", ""),
                "StudyDescription": TEXTS[(number * 3) % len(TEXTS)].replace("\\", ""),
                "ReferringPhysicianName": NAMES[(number * 5) % len(NAMES)],
                "Modality": ("CT", "MR", "us", "")[number % 4],
            }
            keep(index, instance(number, 1, 1, **values))
            if number % 3 == 0:
                other = NAMES[(number + 1) % len(NAMES)]
                keep(
                    index, instance(number, 2, 1, **{**values, "PatientName": other, "StudyDate": "20260102"})
                )
        yield index._database


def wild(texts: tuple[str, ...]) -> st.SearchStrategy[str]:
    """A stored text, or a part of it with wildcards, in any case."""

    def changed(text: str, begin: int, end: int, kind: int) -> str:
        part = text[begin : len(text) - end] if end else text[begin:]
        return (text, f"{part}*", f"*{part}", f"*{part}*", text.replace("e", "?"), text.upper(), part)[kind]

    return st.builds(changed, st.sampled_from(texts), st.integers(0, 3), st.integers(0, 3), st.integers(0, 6))


RANGES = st.sampled_from(("20260102", "20260102-20260110", "-20260102", "20260105-", "2026.01.02", ""))
IDENTIFIERS = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": wild(NAMES),
        "PatientID": wild(("P1", "P2", "P*", "p2")),
        "StudyDate": RANGES,
        "StudyTime": st.sampled_from(("0800-1000", "12", "-1200")),
        "AccessionNumber": st.one_of(
            wild(TEXTS), st.lists(st.sampled_from(("A1", "A10")), min_size=1, max_size=3)
        ),
        "StudyDescription": wild(TEXTS),
        "ReferringPhysicianName": wild(NAMES),
        "ModalitiesInStudy": st.sampled_from(("CT", "C*", "US", "?R", "XA")),
        "Modality": st.sampled_from(("CT", "C*", "US", "?R", "XA")),
    },
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=IDENTIFIERS, level=st.sampled_from(list(Level)), ignore_accents=st.booleans())
def test_every_match_is_selected(
    database: Database, asked: dict[str, Any], level: Level, *, ignore_accents: bool
) -> None:
    check(database, asked, level, ignore_accents=ignore_accents)


@pytest.mark.long
@settings(max_examples=100_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=IDENTIFIERS, level=st.sampled_from(list(Level)), ignore_accents=st.booleans())
def test_every_match_is_selected_long(
    database: Database, asked: dict[str, Any], level: Level, *, ignore_accents: bool
) -> None:
    check(database, asked, level, ignore_accents=ignore_accents)


def check(database: Database, asked: dict[str, Any], level: Level, *, ignore_accents: bool) -> None:
    matcher = IdentifierMatcher(
        asked, keys_down_to(level), ignore_accents=ignore_accents, values=stored_values
    )
    entities = Entities(database, ["ModalitiesInStudy"])

    def matches(wanted: dict[str, Any]) -> list[Any]:
        selected = EntitySelection(database, wanted, level, ignore_accents=ignore_accents).rows_after(
            None, 1000
        )
        found = entities.read(level, selected)
        return [one.identities for one in found if matcher.fits(one.attributes)]

    assert matches({}) == matches(asked)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("level", "asked"),
    [
        (Level.STUDY, {"StudyInstanceUID": "1.2.3"}),
        (Level.STUDY, {"StudyInstanceUID": ["1.2.3", "1.2.4"]}),
        (Level.STUDY, {"AccessionNumber": "A1"}),
        (Level.STUDY, {"AccessionNumber": "A1*", "ModalitiesInStudy": "CT"}),
        (Level.STUDY, {"PatientID": "P1"}),
        (Level.STUDY, {"PatientName": "DOE^J*", "StudyDescription": "*e*"}),
        (Level.STUDY, {"StudyDate": "20260101-20260102"}),
        (Level.PATIENT, {"PatientID": "P1"}),
        (Level.PATIENT, {"PatientName": "Müller*"}),
        (Level.SERIES, {"StudyInstanceUID": "1.2.3"}),
        (Level.IMAGE, {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4"}),
        (Level.IMAGE, {"SOPInstanceUID": "1.2.3"}),
    ],
    ids=str,
)
def test_no_table_is_read_as_a_whole(level: Level, asked: dict[str, Any], tmp_path: Path) -> None:
    """SQLite's plan has no scan of a table: of 100,000 studies one is found by an index.

    Of names, the index of patients with attributes of their own (ADT) may be read as a whole.
    """
    with Index(tmp_path, STORAGE) as index:
        query = EntitySelection(index._database, asked, level)._query.order_by(1).limit(10)
        sql, values = index._database.peewee.get_sql_context().sql(query).query()
        with index._database.connection():
            plan = index._database.peewee.execute_sql(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    steps = [row[3] for row in plan]
    assert [] == [
        step for step in steps if step.startswith("SCAN t") and "USING INDEX patient_name" not in step
    ], steps
