"""Matching of worklist keys (PS3.4 Section C.2.2.2) and what answers are made of, without a network."""

import re
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from peewee import SQL
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from index.database.tables import ScheduledStep
from index.orders.dicom import attributes_of
from index.query import identifiers
from index.query.identifier_matching import IdentifierMatcher
from index.query.identifiers import read_identifier
from index.query.value_matching import BadIdentifier
from index.query.worklist_keys import KEYS, SCHEDULED_STEPS
from index.worklist.query import START
from index.worklist.selection import conditions
from support.worklist import item, query

answer = partial(identifiers.answer, keys=KEYS)
matcher = partial(IdentifierMatcher, keys=KEYS, period=START)


def fits(wanted: dict[str, Any], **said: Any) -> bool:
    return matcher(read_identifier(query(**wanted))).fits(attributes_of(item(1, **said)))


DATE, TIME = "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"


@pytest.mark.parametrize(
    ("wanted", "said", "expected"),
    [
        # Person names: case, groups, padding.
        ("DOE^JANE", "Doe^Jane", True),
        ("doe^jane^^^", "Doe^Jane", True),
        ("Doe", "Doe^Jane", False),
        ("Doe*", "Doe^Jane", True),
        ("DOE^J*", "Doe^Jane^Mary", True),
        ("Doe^J?ne", "Doe^Jane", True),
        ("*", "", True),
        ("山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("yamada*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("=山田^太郎", "Yamada^Tarou=山田^太郎", True),
        ("Yamada*=山本*", "Yamada^Tarou=山田^太郎", False),
        ("MÜLLER*", "Müller^Hänsel", True),
        ("Mu\u0308ller*", "Müller^Hänsel", True),
        ("Nobody", "", False),
    ],
)
def test_person_names(wanted: str, said: str, *, expected: bool) -> None:
    assert expected is fits({"PatientName": wanted}, PatientName=said)


@pytest.mark.parametrize(
    ("wanted", "said", "expected"),
    [
        ("Muller*", "Müller^Hänsel", True),
        ("MULLER^HANSEL", "Müller^Hänsel", True),
        ("Müller*", "Muller^Hansel", True),
        ("mu\u0308ller*", "MULLER", True),
        ("Lodz", "Łódź", True),
        ("Sorensen^Bjork", "Sørensen^Björk", True),
        ("Strasse", "Straße", True),
        ("ilhan", "İlhan", True),
        ("Aesir", "Æsir", True),
        ("=Παπας", "Papas=Παπάς", True),
        ("=かき", "Kaki=かき", True),
        # A mark that makes another syllable is no accent; neither is another letter.
        ("=かき", "Gaki=がき", False),
        ("Mueller*", "Müller", False),
        ("Muller", "Muellér", False),
    ],
)
def test_names_without_accents(wanted: str, said: str, *, expected: bool) -> None:
    identifier, told = read_identifier(query(PatientName=wanted)), attributes_of(item(1, PatientName=said))
    assert expected is matcher(identifier, ignore_accents=True).fits(told)
    assert "patient_name" not in selected_by(identifier, ignore_accents=True)[0]


def test_accents_count_unless_asked_for() -> None:
    assert not fits({"PatientName": "Muller*"}, PatientName="Müller")
    asked = query(ScheduledPerformingPhysicianName="Jurgen*", PatientID="*")
    told = attributes_of(item(1, ScheduledPerformingPhysicianName="Jürgen^A", PatientID="Ü1"))
    assert [False, True] == [
        matcher(read_identifier(asked), ignore_accents=flag).fits(told) for flag in (False, True)
    ]
    asked = query(PatientID="U1")
    assert not matcher(read_identifier(asked), ignore_accents=True).fits(told)


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("", "", True),
        ("20260102", "", True),
        ("2026.01.02", "", True),
        ("20260103", "", False),
        ("20260101-20260102", "", True),
        ("20260103-", "", False),
        ("-20260102", "", True),
        ("", "101500", True),
        ("", "1015", True),
        ("", "10", False),
        ("", "10-11", True),
        ("", "-1014", False),
        ("", "-1015", True),
        # One period, from the first day's time to the last day's.
        ("20260101-20260103", "1200-0900", True),
        ("20260102-20260103", "1200-0900", False),
        ("20260101-20260102", "0900-1000", False),
        ("20260101-20260102", "0900-1015", True),
        ("20260102", "1000-1100", True),
        ("20260102", "1100-1200", False),
        ("20260102-", "1016-", False),
        ("20260101-", "1016-", True),
        ("-20260102", "-1014", False),
        ("-20260103", "-1014", True),
        # A single time on each of several days.
        ("20260101-20260103", "1015", True),
        ("20260101-20260103", "1200", False),
    ],
)
def test_dates_and_times(date: str, time: str, *, expected: bool) -> None:
    assert expected is fits({DATE: date, TIME: time})


@pytest.mark.parametrize(
    ("keyword", "wanted", "said", "expected"),
    [
        ("PatientID", "p1", "P1", False),
        ("PatientID", "P?", "P1", True),
        ("PatientID", "P?", "P", False),
        ("PatientID", "*1", "P1", True),
        ("PatientID", "P[12]", "P1", False),
        ("PatientID", "P1", "", False),
        ("Modality", "CT", ["CT", "MR"], True),
        ("ScheduledStationAETitle", "CT2", ["CT1", "CT2"], True),
        ("ScheduledStationAETitle", "CT3", ["CT1", "CT2"], False),
        ("StudyInstanceUID", ["1.2", "1.3"], "1.3", True),
        ("StudyInstanceUID", ["1.2", "1.3"], "1.4", False),
        ("StudyInstanceUID", "1.*", "1.3", False),
        ("PatientWeight", "70", "70.0", True),
        ("PatientWeight", "71", "70.0", False),
        ("PatientSex", "F", "M", False),
    ],
)
def test_values(keyword: str, wanted: Any, said: Any, *, expected: bool) -> None:
    assert expected is fits({keyword: wanted}, **{keyword: said})


def test_many_wildcards_take_no_time() -> None:
    assert not fits({"PatientID": "*a" * 30 + "b"}, PatientID="a" * 64)


def code(value: str, scheme: str = "99X") -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, f"meaning of {value}"
    return made


def test_one_item_of_a_sequence_has_to_have_it_all() -> None:
    said = {"RequestedProcedureCodeSequence": [code("1", "A"), code("2", "B")]}
    asked = code("1", "A")
    del asked.CodeMeaning
    assert fits({"RequestedProcedureCodeSequence": [asked]}, **said)
    asked.CodingSchemeDesignator = "B"
    assert not fits({"RequestedProcedureCodeSequence": [asked]}, **said)
    assert not fits({"RequestedProcedureCodeSequence": [asked]})


@pytest.mark.parametrize(
    "wanted", [{DATE: "today"}, {DATE: "-"}, {DATE: "2026"}, {TIME: "25 o'clock"}, {DATE: "20260101-x"}]
)
def test_a_key_that_is_none_is_named(wanted: dict[str, str]) -> None:
    with pytest.raises(BadIdentifier, match=next(iter(wanted))):
        matcher(read_identifier(query(**wanted)))


def test_a_key_that_is_cut_off_is_named() -> None:
    """Half a PatientID matches nobody or another one; bytes that are no identifier at all match nobody."""
    asked = query(PatientID="P12345")
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_dataset(stream, asked)
    encoded = stream.getvalue()
    at = encoded.index(b"P12345")
    with pytest.raises(BadIdentifier, match="PatientID: ends within its value"):
        read_identifier(dcmread(BytesIO(encoded[: at + 4]), force=True))
    with pytest.raises(BadIdentifier, match="ends within its value"):
        read_identifier(dcmread(BytesIO(b"\x99\x99no identifier"), force=True))


def test_two_items_are_no_key() -> None:
    asked = query()
    asked.ScheduledProcedureStepSequence.append(Dataset())
    with pytest.raises(BadIdentifier, match="one item"):
        matcher(read_identifier(asked))


def test_only_what_is_asked_for_is_answered() -> None:
    asked = Dataset()
    asked.PatientName = "Doe*"
    asked.PatientWeight = None
    asked.RequestedProcedureCodeSequence = [code("")]
    del asked.RequestedProcedureCodeSequence[0].CodingSchemeDesignator
    found = answer(
        read_identifier(asked), attributes_of(item(1, RequestedProcedureCodeSequence=[code("1")])), ""
    )
    assert ["PatientName", "PatientWeight", "RequestedProcedureCodeSequence"] == [
        one.keyword for one in found
    ]
    assert ("Doe^Jane1", None) == (found.PatientName, found.PatientWeight)
    assert {"CodeValue": "1", "CodeMeaning": "meaning of 1"} == {
        one.keyword: one.value for one in found.RequestedProcedureCodeSequence[0]
    }


def test_a_sequence_without_keys_is_answered_whole() -> None:
    asked = Dataset()
    asked.ScheduledProcedureStepSequence = []
    found = answer(read_identifier(asked), attributes_of(item(1)), "")
    said = item(1).ScheduledProcedureStepSequence[0]
    assert {one.keyword: one.value for one in said} == {
        one.keyword: one.value for one in found.ScheduledProcedureStepSequence[0]
    }


def test_keys_that_nobody_knows_are_passed_over() -> None:
    asked = query(WindowCenter="40")
    asked.add_new(0x00091010, "LO", "private")
    asked.ScheduledProcedureStepSequence[0].SliceThickness = None
    identifier = read_identifier(asked)
    assert ["WindowCenter", f"{SCHEDULED_STEPS}.SliceThickness", "(0009,1010)"] == sorted(
        identifiers.unsupported(identifier, KEYS),
        key=lambda one: (one.startswith("("), not one.startswith("W")),
    )
    assert matcher(identifier).fits(attributes_of(item(1)))
    assert "WindowCenter" not in answer(identifier, attributes_of(item(1)), "")


@pytest.mark.parametrize(
    ("name", "charset", "expected"),
    [
        ("Doe^Jane", "ISO_IR 100", None),
        ("Müller^Hänsel", "ISO_IR 100", "ISO_IR 100"),
        ("Müller^Hänsel", "", "ISO_IR 192"),
        ("Дядя", "ISO_IR 100", "ISO_IR 192"),
        ("Дядя", "ISO_IR 144", "ISO_IR 144"),
        ("Yamada^Tarou=山田^太郎", "\\ISO 2022 IR 87", ["", "ISO 2022 IR 87"]),
    ],
)
def test_character_sets_of_answers(name: str, charset: str, expected: str | None) -> None:
    said = {**attributes_of(item(1)), "PatientName": name}
    assert expected == answer(read_identifier(query()), said, charset).get("SpecificCharacterSet")


def selected_by(identifier: dict[str, Any], *, ignore_accents: bool = False) -> tuple[str, list[Any]]:
    """Return the conditions of SQL and their values."""
    wanted = conditions(identifier, ignore_accents=ignore_accents)
    sql, values = ScheduledStep.select(SQL("1")).where(*wanted).sql()
    return sql.partition(" WHERE ")[2], values


def test_what_sql_selects_by() -> None:
    asked = query(
        PatientName="doe-smith^Ann*",
        PatientID="P1",
        AccessionNumber="A*",
        Modality="CT",
        **{DATE: "20260101-"},
    )
    sql, values = selected_by(read_identifier(asked))
    columns = ("patient_number", "modality", "status", "patient_name", "start_date", "start_date")
    assert columns == tuple(re.findall(r'"(\w+)" (?:=|IN|I?LIKE|!=|>=|<=)', sql))
    assert ["P1", "", "CT", "SCHEDULED", "ARRIVED", "READY", "%smith%", "", "20260101"] == [
        one for one in values if one != "\\"
    ]


def test_the_table_has_the_required_keys_and_forty_more() -> None:
    step = KEYS[SCHEDULED_STEPS].items
    required = {one.keyword for one in (*KEYS.values(), *step.values()) if one.matching == "R"}
    assert {
        SCHEDULED_STEPS,
        "ScheduledStationAETitle",
        DATE,
        TIME,
        "Modality",
        "ScheduledPerformingPhysicianName",
        "PatientName",
        "PatientID",
    } == required
    assert len(KEYS) + len(step) > 47
