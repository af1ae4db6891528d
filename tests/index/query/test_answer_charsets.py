"""An answer's character set holds its text, or it is UTF-8 (PS3.3 C.12.1.1.2, PS3.5 6.1); DCMTK reads it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.charset import python_encoding
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import dcmread
from pydicom.filewriter import write_dataset

from index.dicom.charsets import NAME_DELIMITERS, TEXT_DELIMITERS, decode, repertoire
from index.orders.dicom import attributes_of
from index.query.identifiers import answer, read_identifier
from index.query.worklist_keys import KEYS
from support.daemon import run
from support.worklist import item, query, write

UTF_8 = "ISO_IR 192"
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"

CASES = [
    # The default repertoire holds ASCII, whatever is declared beside it.
    ("ISO_IR 6", "Müller^J", UTF_8),
    ("ISO 2022 IR 6", "Müller^J", UTF_8),
    ("\\ISO 2022 IR 87", "Müller^J", UTF_8),
    ("\\ISO 2022 IR 87", "Müller=山田", UTF_8),
    ("\\ISO 2022 IR 149", "Müller", UTF_8),
    ("\\ISO 2022 IR 159", "Müller", UTF_8),
    ("ISO_IR 6", "Muller^J", None),
    # JIS X 0201 has Katakana of half width and no Kanji, though Python's codec does.
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ISO_IR 13"),
    ("ISO_IR 13", "山田^太郎", UTF_8),
    ("ISO_IR 13", "Müller", UTF_8),
    ("\\ISO 2022 IR 87", JAPANESE, ["", "ISO 2022 IR 87"]),
    ("ISO 2022 IR 6\\ISO 2022 IR 87", JAPANESE, ["ISO 2022 IR 6", "ISO 2022 IR 87"]),
    ("ISO 2022 IR 100\\ISO 2022 IR 87", "Müller=山田", ["ISO 2022 IR 100", "ISO 2022 IR 87"]),
    ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
    # pydicom writes no escape sequence for it.
    ("\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东", UTF_8),
    ("GB18030", "王^小东", "GB18030"),
    ("GBK", "张^龍", "GBK"),
    ("GBK", "홍", UTF_8),
    ("ISO_IR 100", "Müller", "ISO_IR 100"),
    ("ISO_IR 100", "Łódź", UTF_8),
    ("ISO_IR 101", "Łódź", "ISO_IR 101"),
    ("ISO_IR 126", "Διον", "ISO_IR 126"),
    ("ISO_IR 127", "عمر", "ISO_IR 127"),
    ("ISO_IR 138", "שרון", "ISO_IR 138"),
    ("ISO_IR 144", "Иванов^Иван", "ISO_IR 144"),
    ("ISO_IR 144", "Müller", UTF_8),
    ("ISO_IR 148", "Çavuş", "ISO_IR 148"),
    ("ISO_IR 166", "ไทย", "ISO_IR 166"),
    # UTF-8 and its like stand alone; what is no defined term is none.
    ("ISO_IR 192\\ISO 2022 IR 87", "Müller", UTF_8),
    ("ISO 2022 IR 100\\GB18030", "张", UTF_8),
    ("ISO-IR 100", "Müller", UTF_8),
    ("latin1", "Müller", UTF_8),
    ("", "Müller", UTF_8),
]


@pytest.mark.parametrize(("charset", "name", "expected"), CASES)
def test_the_set_holds_the_text_or_is_utf_8(
    charset: str, name: str, expected: str | list[str] | None, tmp_path: Path
) -> None:
    said = {**attributes_of(item(1)), "PatientName": name}
    made = answer(read_identifier(query()), said, charset, KEYS)
    assert expected == made.get("SpecificCharacterSet")
    path = write(made, tmp_path / "answer.dcm")
    assert name == str(dcmread(path).PatientName)
    # DCMTK of Debian converts by iconv, which has no ISO 2022 for Japanese.
    if not any(term.endswith((" 87", " 159")) for term in expected or ()):
        dumped = run("dcmdump", "+U8", "+P", "PatientName", str(path))
        assert f"[{name}]" in dumped.stdout, dumped.stderr


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.lists(st.sampled_from(sorted(python_encoding)), min_size=1, max_size=3),
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\^="), max_size=12
    ),
)
@example(["ISO 2022 58", "ISO 2022 IR 159"], "0¿")  # a blank that pads followed a two-byte character
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_set_and_the_text(terms: list[str], text: str) -> None:
    said = {**attributes_of(item(1)), "PatientName": text, "RequestedProcedureDescription": text.strip()}
    asked = query()
    asked.RequestedProcedureDescription = ""
    made = answer(read_identifier(asked), said, "\\".join(terms), KEYS)
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, made)
    raw = dcmread(DicomBytesIO(stream.getvalue()), force=True)
    chosen = made.get("SpecificCharacterSet") or ""
    initial = repertoire("\\".join([chosen] if isinstance(chosen, str) else chosen).encode())
    for keyword, delimiters in (
        ("PatientName", NAME_DELIMITERS),
        ("RequestedProcedureDescription", TEXT_DELIMITERS),
    ):
        read, is_whole = decode(raw.get_item(keyword).value or b"", initial, delimiters)
        assert (str(made[keyword].value or "").strip(), True) == (read.strip(), is_whole)
