"""MSH-18 by any name of a character set, a declared ASCII that is not, and what is configured."""

from collections.abc import Callable

import pytest

from index import Index, WorklistSettings
from index.orders.hl7.charsets import CHARSETS, codec_and_charset, decode
from index.orders.hl7.faults import BadMessage
from support.hl7 import orm, pid
from support.worklist import selected

Told = Callable[..., list[str]]


def named(index: Index) -> tuple[str, str]:
    (item,) = selected(index)
    return item.attributes["PatientName"], item.charset


@pytest.mark.parametrize(
    ("charset", "codec", "dicom"),
    [
        *((name, "utf-8", "ISO_IR 192") for name in ("UTF8", "utf-8", "UTF_8", "UTF-8", "UNICODE UTF-8")),
        *((name, "cp1252", "ISO_IR 192") for name in ("WINDOWS-1252", "cp1252", "windows-1252", "1252")),
        *((name, "latin-1", "ISO_IR 100") for name in ("ISO-8859-1", "iso_8859-1", "latin1", "ISO_IR 100")),
        *((name, "latin-1", "ISO_IR 100") for name in ("8859/1", "8859-1", "ISO8859/1", "ISO8859-1", "L1")),
        ("ISO-8859-15", "iso8859-15", "ISO_IR 203"),
        ("WINDOWS-1250", "cp1250", "ISO_IR 192"),
        # A declared ASCII that is not is taken as unnamed.
        *((name, "utf-8", "ISO_IR 192") for name in ("ASCII", "ISO IR6", "US-ASCII", "ascii")),
        ("ASCII", "latin-1", "ISO_IR 100"),
    ],
)
def test_any_name_of_a_character_set(tell: Told, still: Index, charset: str, codec: str, dicom: str) -> None:
    text = orm(patient=pid(name="Müller^Jörg"), charset=charset).decode()
    assert ["AA"] == tell(text.encode(codec))
    assert ("Müller^Jörg", dicom) == named(still)


@pytest.mark.parametrize(
    "charset",
    [
        "KLINGON",
        "utf-16",
        "rot13",
        "base64",
        "cp037",
        "idna",
        "unicode_escape",
        "utf-7",
        "mbcs",
        "../../x",
        "undefined",
    ],
)
def test_what_is_no_character_set_of_messages_is_refused(tell: Told, charset: str) -> None:
    (answer,) = tell(orm(charset=charset))
    assert answer.startswith(f"AE MSH-18: character set '{charset}' is none of")


def test_another_declared_set_that_is_not_is_refused(tell: Told) -> None:
    (answer,) = tell(orm(patient=pid(name="Müller")).decode().encode("latin-1"))
    assert answer.startswith("AE MSH-18: byte")


@pytest.mark.parametrize("charset", ["8859/5", "UNICODE UTF-8", "KLINGON", ""])
def test_what_is_configured_overrules_what_is_said(opened: Callable[..., Index], charset: str) -> None:
    index = opened(hl7_senders=[{"application": "RIS", "charset": "windows-1252"}])
    text = orm(patient=pid(name="Müller^Jörg"), charset=charset).decode()
    assert "AA" == index.orders._handler.handle(text.encode("cp1252"))[0]
    assert ("Müller^Jörg", "ISO_IR 192") == named(index)


def test_a_character_set_that_is_none_is_a_fault_of_configuration() -> None:
    with pytest.raises(ValueError, match="character set 'KLINGON' is none of ASCII"):
        WorklistSettings(hl7_senders=[{"charset": "KLINGON"}])


def test_every_name_of_table_0211_is_a_codec() -> None:
    for name in CHARSETS:
        codec, _ = codec_and_charset(name)
        assert "MSH|^~\\&|" == decode(b"MSH|^~\\&|", [name])[0], codec


def test_names_that_are_none_leave_nothing_behind() -> None:
    """codecs.lookup keeps every name that it does not find; a sender has as many as it likes."""
    import encodings

    for number in range(50):
        with pytest.raises(BadMessage):
            codec_and_charset(f"KLINGON-{number}")
    assert not [name for name in encodings._cache if "klingon" in name]
