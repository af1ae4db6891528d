"""Text of the header: character sets, person names, padding and control characters."""

import pytest
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from index.dicom.attributes import IDENTITY, WANTED, Attribute
from index.dicom.header import read_header
from index.records import Header
from support.dicom_encoding import EXPLICIT, Items, explicit

DESCRIPTION = 0x00081030
PATIENT_NAME = 0x00100010


def with_text(charset: bytes | None, value: bytes, tag: int = PATIENT_NAME, vr: str = "PN") -> Header:
    declared = [] if charset is None else [(0x00080005, "CS", charset)]
    return read_header(explicit(*declared, (tag, vr, value)), EXPLICIT)


# PS3.5 Annexes H, I, J and K, and what the tables of PS3.3 C.12.1.1.2 add.
NAMES = [
    (None, b"Doe^John", "Doe^John"),
    (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
    (b"ISO_IR 101", b"W\xb3odek", "Włodek"),
    (b"ISO_IR 109", b"\xa6", "Ĥ"),
    (b"ISO_IR 110", b"\xb1", "ą"),
    (b"ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    (b"ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    (b"ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
    (b"ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3", "Люкceмбypг"),  # noqa: RUF001 - Cyrillic on purpose
    (b"ISO_IR 148", b"\xdd", "İ"),
    (b"ISO_IR 166", b"\xb9\xd2\xc1", "นาม"),
    (b"ISO_IR 203", b"\xa4", "€"),
    (b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東"),
    (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    (b"GBK", "Wang^XiaoDong=王^小东=".encode("gbk"), "Wang^XiaoDong=王^小东"),
    (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    (b"\\ISO 2022 IR 159", b"=\x1b$(D\x30\x21\x1b(B", "=丂"),
    (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    (b"ISO 2022 IR 149", b"\xc8\xab^\xb1\xe6\xb5\xbf", "홍^길동"),
    (
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东",
    ),
    (
        b"ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126",
        b"\xc4ndr\xe9=\x1b-L\xbb\xee=\x1b-F\xc4\xe9",
        "Ändré=Лю=Δι",
    ),
]


@pytest.mark.parametrize(("charset", "value", "expected"), NAMES)
def test_character_sets(charset: bytes | None, value: bytes, expected: str) -> None:
    found = with_text(charset, value)
    assert (expected, ()) == (found.patient["PatientName"], found.doubts)


def test_second_bytes_that_look_like_backslashes_do_not_split() -> None:
    value = "乗\\二".encode("gbk")
    assert b"\x81\\" in value
    found = with_text(b"GBK", value, 0x00081070, "PN")
    assert ["乗", "二"] == found.series["OperatorsName"]
    in_jis = with_text(b"\\ISO 2022 IR 87", b"\x1b$B%\\\x1b(B", DESCRIPTION, "LO")
    assert "ボ" == in_jis.study["StudyDescription"]


def test_code_extensions_end_at_a_delimiter() -> None:
    found = with_text(b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-L\xbb^\xe9")
    assert "Л^é" == found.patient["PatientName"]


@pytest.mark.parametrize(
    ("charset", "value", "expected", "doubt"),
    [
        (b"ISO_IR 999", b"J\xf6rg", "Jörg", "SpecificCharacterSet 'ISO_IR 999' is unknown"),
        (b"ISO-IR 100", b"J\xf6rg", "Jörg", "SpecificCharacterSet 'ISO-IR 100' is misspelled"),
        (b"utf-8", "Jörg".encode(), "Jörg", "SpecificCharacterSet 'utf-8' is misspelled"),
        (b"ISO_IR 192", b"J\xf6rg", "J\ufffdrg", "PatientName has characters outside its character set"),
        (None, b"J\xf6rg", "Jörg", "PatientName has characters outside its character set"),
        (b"\\ISO 2022 IR 87", b"A\x1b%GB", "A%GB", "PatientName has characters outside its character set"),
    ],
)
def test_odd_text_is_kept_with_a_doubt(charset: bytes, value: bytes, expected: str, doubt: str) -> None:
    found = with_text(charset, value)
    assert expected == found.patient["PatientName"]
    assert doubt in found.doubts


def test_items_have_character_sets_of_their_own() -> None:
    meaning = (0x00080104, "LO", b"\xd4")
    own = (0x00080005, "CS", b"ISO_IR 144")
    data = explicit((0x00080005, "CS", b"ISO_IR 100"), (0x00081032, "SQ", Items([[meaning], [own, meaning]])))
    meanings = [item["CodeMeaning"] for item in read_header(data, EXPLICIT).study["ProcedureCodeSequence"]]
    assert ["Ô", "д"] == meanings


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Doe^John^^^ ", "Doe^John"),
        (b" Doe ^John=\0", "Doe ^John"),
        (b"=A=", "=A"),
        (b"A=B=C=D", "A=B=C"),
        (b"A\\B", "A"),
        (b"^^ ", None),
    ],
)
def test_names_are_trimmed(value: bytes, expected: str | None) -> None:
    assert expected == with_text(None, value).patient.get("PatientName")


def test_several_names() -> None:
    found = with_text(None, b"A^B^\\\\C ", 0x00081060)
    assert ["A^B", "C"] == found.study["NameOfPhysiciansReadingStudy"]


@pytest.mark.parametrize(
    ("tag", "vr", "keyword", "value", "expected"),
    [
        (DESCRIPTION, "LO", "StudyDescription", b"  Head\0 ", "Head"),
        (DESCRIPTION, "LO", "StudyDescription", b"He\x07ad\n", "Head"),
        (DESCRIPTION, "LO", "StudyDescription", b"A\\B ", "A\\B"),
        (DESCRIPTION, "LO", "StudyDescription", b" \0", None),
        (0x00080020, "DA", "StudyDate", b"1999.01.02", "1999.01.02"),
        (0x00420010, "ST", "DocumentTitle", b" one\r\ntwo\rthree\tx\n ", " one\ntwo\nthree\tx"),
        (0x00200013, "IS", "InstanceNumber", b" -7 ", "-7"),
        (0x00200013, "IS", "InstanceNumber", b"1\\2 ", "1"),
        (0x00280010, "US", "Rows", b"\x01\x02\x03\x04\x05\x06", None),
        (0x00280010, "UL", "Rows", b"\x01\x02\x00\x00", "513"),
        (0x00280010, "US", "Rows", b"", None),
    ],
)
def test_values(tag: int, vr: str, keyword: str, value: bytes, expected: str | None) -> None:
    found = with_text(None, value, tag, vr)
    assert expected == {**found.study, **found.instance}.get(keyword)


def test_uids_lose_their_padding_only() -> None:
    assert "1.2\\../3" == with_text(None, b" 1.2\\../3 \0", 0x00080016, "UI").sop_class_uid


def flattened(attributes: list[Attribute]) -> list[Attribute]:
    return [one for each in attributes for one in (each, *flattened(list(each.items.values())))]


def test_the_table_is_the_standards() -> None:
    for attribute in flattened(list(WANTED.values())):
        tag = tag_for_keyword(attribute.keyword)
        assert (tag, dictionary_VR(attribute.tag)) == (attribute.tag, attribute.vr), attribute.keyword
        several = dictionary_VM(attribute.tag) != "1" and attribute.vr != "SQ"
        assert several == attribute.many, attribute.keyword
    assert WANTED.keys() >= IDENTITY
