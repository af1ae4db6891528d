"""Values that no VR allows never go out to a scanner (PS3.5 Table 6.2-1): mended or left out, and a doubt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import VALIDATORS, validate_value
from structlog.testing import capture_logs

from index import Index, NewOrder, Source, WorklistSettings, everything
from index.dicom.value_rules import doubts, tag_and_vr, valid_values
from support.filling import STORAGE
from support.hl7 import message as hl7
from support.hl7 import msh, order_group, pid
from support.worklist import query


@pytest.mark.parametrize(
    ("keyword", "told", "expected"),
    [
        # Text is mended: a backslash separates values (PS3.5 6.1.2.3), control characters are none (6.1.3).
        ("PatientName", "Back\\Slash^B", "Back Slash^B"),
        ("PatientName", "Cr\r\nLf^C", "Cr Lf^C"),
        ("PatientName", "Esc\x1b$B^C", "Esc $B^C"),
        ("PatientName", "A" * 70 + "^B=" + "C" * 70, "A" * 64 + "=" + "C" * 64),
        ("PatientName", "A=B=C=D=E", "A=B=C"),
        ("PatientName", "A^B^C^D^E^F^G", "A^B^C^D^E F G"),
        ("PatientName", "Doe^Jane^^^", "Doe^Jane^^^"),
        ("RequestedProcedureDescription", "x" * 80, "x" * 64),
        ("ScheduledStationName", "Room 1, second floor", "Room 1, second f"),
        ("PatientComments", "two\r\nlines, \\ and \x07bell", "two\r\nlines, \\ and  bell"),
        ("RequestedProcedureComments", "Kopf\u0085nativ", "Kopf nativ"),
        # Codes, titles, identifiers, dates and numbers: a part of it would be another one.
        ("Modality", "ct", "CT"),
        ("Modality", "CT ", "CT"),
        ("Modality", "CT/MR", ""),
        ("Modality", "Computed Tomography", ""),
        ("PatientSex", "f", "F"),
        ("ScheduledStationAETitle", "SCANNER_WITH_20_CHAR", ""),
        ("ScheduledStationAETitle", "CT1\\CT2", ""),
        ("ScheduledStationAETitle", "CTÄ1", ""),
        ("ScheduledStationAETitle", " CT1 ", "CT1"),
        ("AccessionNumber", "A" * 16, "A" * 16),
        ("AccessionNumber", "A" * 17, ""),
        ("AccessionNumber", "A\\1", ""),
        ("PatientID", "P\r1", ""),
        ("PatientID", "P" * 65, ""),
        ("OrderCallbackPhoneNumber", "1" * 17, ""),
        ("CodeValue", "C" * 17, ""),
        ("StudyInstanceUID", "1.2.abc", ""),
        ("StudyInstanceUID", "1." * 40, ""),
        ("PatientBirthDate", "1970.01.02", "19700102"),
        ("PatientBirthDate", "19700230", ""),
        ("PatientBirthDate", "1970", ""),
        ("PatientBirthDate", "02/01/1970", ""),
        ("ScheduledProcedureStepStartTime", "10:15", "1015"),
        ("ScheduledProcedureStepStartTime", "2460", ""),
        ("ScheduledProcedureStepStartTime", "101500.123", "101500.123"),
        ("PatientWeight", "70,5", ""),
        ("PatientWeight", "70.5", "70.5"),
        ("PatientWeight", "70.12345678901234", ""),
        ("PatientAge", "40", ""),
        ("PatientAge", "040Y", "040Y"),
    ],
)
def test_a_value_is_mended_or_left_out(keyword: str, told: str, expected: str) -> None:
    assert [expected] * bool(expected) == valid_values(keyword, told)
    assert bool(list(doubts({keyword: told}))) is (told.strip() != expected)


def test_each_value_by_itself() -> None:
    assert ["CT1", "CT2"] == valid_values(
        "ScheduledStationAETitle", ["CT1", "A_TITLE_TOO_LONG_FOR_AE", "CT2"]
    )


def test_doubts_name_the_place_and_no_value() -> None:
    said = {
        "PatientID": "P" * 65,
        "PatientName": "A\\B",
        "ScheduledProcedureStepSequence": [{"Modality": "mr", "ScheduledStationAETitle": ["CT1", "x" * 20]}],
    }
    assert [
        "PatientID: left out, no LO",
        "PatientName: changed, no PN",
        "ScheduledProcedureStepSequence.Modality: changed, no CS",
        "ScheduledProcedureStepSequence.ScheduledStationAETitle: left out, no AE",
    ] == list(doubts(said))


# --- through the index ---


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


def answers(index: Index, **wanted: Any) -> list[Dataset]:
    return list(index.worklist.find(query(**wanted), "CT1"))


def tell(
    index: Index, name: str = "Doe^Jane", ae: str = "CT1", modality: str = "CT", reason: str = ""
) -> str:
    """Let the index have an order by HL7; return the answer's code."""
    orc, obr = order_group()
    fields = obr.split("|")
    fields += [""] * (45 - len(fields))
    fields[21], fields[24], fields[31] = ae, modality, reason
    segments = [msh("ORM^O01"), pid(name=name), orc, "|".join(fields)]
    return index.orders._handler.handle(hl7(*segments))[0]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (r"Smith\S\Jones^A", "Smith Jones^A"),
        (r"Back\E\Slash^B", "Back Slash^B"),
        (r"Cr\X0D\Lf^C", "Cr Lf^C"),
        (r"Equals=Sign^D", "Equals Sign^D"),
    ],
)
def test_names_of_hl7(index: Index, told: str, expected: str) -> None:
    assert "AA" == tell(index, name=told)
    (found,) = answers(index)
    assert expected == str(found.PatientName)


def test_all_stations_of_hl7_count(index: Index) -> None:
    tell(index, ae="CT1~CT2")
    assert [1, 1, 0] == [len(answers(index, ScheduledStationAETitle=name)) for name in ("CT1", "CT2", "CT3")]
    (found,) = answers(index)
    assert ["CT1", "CT2"] == found.ScheduledProcedureStepSequence[0].ScheduledStationAETitle


def test_a_modality_in_small_letters_is_found(index: Index) -> None:
    with capture_logs() as logs:
        tell(index, modality="ct")
    (found,) = answers(index, Modality="CT")
    assert "CT" == found.ScheduledProcedureStepSequence[0].Modality
    told = "ScheduledProcedureStepSequence.Modality: changed, no CS"
    assert [told] == next(one["doubts"] for one in logs if one["event"] == "order_doubts")
    assert [told] == index.orders.listed()[0].doubts


def test_a_station_that_is_none_does_not_hide_the_order(tmp_path: Path) -> None:
    settings = WorklistSettings(fill_station=True)
    with Index(tmp_path / "data", STORAGE, worklist=settings) as index:
        tell(index, ae="SCANNER_WITH_20_CHAR")
        (found,) = answers(index, ScheduledStationAETitle="CT1")
        assert "CT1" == found.ScheduledProcedureStepSequence[0].ScheduledStationAETitle


def test_the_code_of_the_reason_is_kept(index: Index) -> None:
    tell(index, reason="R51^Headache^I10~M54^Back pain^I10")
    asked = query()
    asked.ReasonForTheRequestedProcedure = ""
    asked.ReasonForRequestedProcedureCodeSequence = []
    (found,) = index.worklist.find(asked, "CT1")
    assert ("Headache", [("R51", "I10", "Headache"), ("M54", "I10", "Back pain")]) == (
        found.ReasonForTheRequestedProcedure,
        [
            (one.CodeValue, one.CodingSchemeDesignator, one.CodeMeaning)
            for one in found.ReasonForRequestedProcedureCodeSequence
        ],
    )


def test_a_code_without_its_value_is_left_out_whole(index: Index) -> None:
    codes = [{"CodeValue": "X" * 17, "CodingSchemeDesignator": "L", "CodeMeaning": "Long"}]
    codes += [{"CodeValue": "X1", "CodingSchemeDesignator": "L", "CodeMeaning": "Short"}]
    order = NewOrder(
        Source.CLI, "", "1", {"PatientID": "P1"}, {"RequestedProcedureCodeSequence": codes}, [{}]
    )
    index.orders.add(order)
    asked = query()
    asked.RequestedProcedureCodeSequence = []
    (found,) = index.worklist.find(asked, "CT1")
    assert ["X1"] == [one.CodeValue for one in found.RequestedProcedureCodeSequence]


# --- whatever was told ---

KEYWORDS = [one.keyword for one in everything({}) if one.VR != "SQ" and one.keyword != "SpecificCharacterSet"]
STEP_KEYWORDS = [
    one.keyword for one in everything({}).ScheduledProcedureStepSequence[0] if one.VR != "SQ" and one.keyword
]
TOLD = st.one_of(
    st.text(max_size=80),
    st.text("CT1\\\r\n\0^=ü ", max_size=20),
    st.lists(st.text("CT12~\\", max_size=18), max_size=3),
)


@given(
    st.dictionaries(st.sampled_from(KEYWORDS), TOLD, max_size=8),
    st.dictionaries(st.sampled_from(STEP_KEYWORDS), TOLD, max_size=6),
)
@example({"PregnancyStatus": "1"}, {})
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_was_told_the_answer_is_valid(attributes: dict[str, Any], step: dict[str, Any]) -> None:
    from index.query.identifiers import answer, read_identifier
    from index.query.worklist_keys import KEYS as WORKLIST_KEYS

    item = {**attributes, "ScheduledProcedureStepSequence": [step]}
    made = answer(read_identifier(everything({})), item, "ISO_IR 100", WORKLIST_KEYS)
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_dataset(stream, made)
    for element in [*made, *made.ScheduledProcedureStepSequence[0]]:
        if element.VR in VALIDATORS and element.VR != "UI" and element.value:
            several = element.value if element.VM > 1 else [element.value]
            for one in several:
                validate_value(element.VR, one if isinstance(one, int) else str(one), config.RAISE)
                assert element.VR in ("LT", "ST", "UT") or not set("\\\r\n\0") & set(str(one))
    assert tag_and_vr("Modality")[1] == "CS"
