"""Primitives: what FHIR cannot hold becomes nothing, never something invalid."""

import pytest

from index.imagingstudy.times import date, date_time, is_offset, zone
from index.imagingstudy.values import clean, code, fhir_id, hashed_id, is_id, is_oid, is_uri, unsigned


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("CT", "CT"),
        ("  CT head ", "CT head"),
        ("a\x00b\nc", "a b c"),
        ("\x1b$B", "$B"),
        ("頭部\u3000CT", "頭部 CT"),
        ("\ud800x\ufffe", "x"),
        (" \t\u00a0", ""),
        ("", ""),
        (None, ""),
        (7, ""),
        ("x" * (1024 * 1024), "x" * (1024 * 1024)),
        ("x" * (1024 * 1024 + 1), ""),
        ("ü" * (1024 * 1024), ""),
    ],
)
def test_strings(value: object, expected: str) -> None:
    assert expected == clean(value)


@pytest.mark.parametrize(("value", "expected"), [("A B", "A B"), ("A  B", ""), ("", ""), (None, "")])
def test_codes(value: object, expected: str) -> None:
    assert expected == code(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("12", 12),
        (" +012 ", 12),
        ("2147483647", 2147483647),
        ("2147483648", None),
        ("-1", None),
        ("1.0", None),
        ("one", None),
        ("٣", None),
        ("²", None),
        ("9" * 5000, None),
        ("", None),
        (None, None),
        (["1", "2"], None),
    ],
)
def test_unsigned_integers(value: object, expected: int | None) -> None:
    assert expected == unsigned(value)


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        ("1.2.3", True),
        ("1.0.3", True),
        ("0.1", True),
        ("1.02", False),
        ("1.2.", False),
        ("1..2", False),
        ("", False),
    ],
)
def test_oids(uid: str, *, expected: bool) -> None:
    assert expected == is_oid(uid)


def test_ids() -> None:
    assert is_id("1.2.3")
    assert not is_id("1" * 65)
    assert not is_id("a/b")
    assert "order-1" == fhir_id("order-1")
    assert is_id(fhir_id("a/b"))
    assert hashed_id("a", "b") == hashed_id("a", "b")
    assert hashed_id("a", "b") != hashed_id("ab")


def test_uris() -> None:
    assert is_uri("urn:oid:1.2")
    assert not is_uri("no uri")
    assert not is_uri("urn:oid:1 2")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20240229", "2024-02-29"),
        ("20230229", ""),
        ("1999.01.02", ""),
        ("00000000", ""),
        ("2024", ""),
        ("", ""),
        ("\uff12\uff10\uff12\uff14\uff10\uff11\uff10\uff11", ""),
    ],
)
def test_dates(value: str, expected: str) -> None:
    assert expected == date(value)


@pytest.mark.parametrize(
    ("time", "offset", "configured", "expected"),
    [
        ("103000", "+0100", None, "2024-07-02T10:30:00+01:00"),
        ("103000", "+0100", "Europe/Berlin", "2024-07-02T10:30:00+01:00"),
        ("103000", "", "Europe/Berlin", "2024-07-02T10:30:00+02:00"),
        ("103000", "", "-03:30", "2024-07-02T10:30:00-03:30"),
        ("103000", "+0000", None, "2024-07-02T10:30:00+00:00"),
        ("103000.500000", "+0100", None, "2024-07-02T10:30:00.5+01:00"),
        ("103000.000", "+0100", None, "2024-07-02T10:30:00+01:00"),
        ("1030", "+0100", None, "2024-07-02T10:30:00+01:00"),
        ("10", "+0100", None, "2024-07-02"),
        ("24:00", "+0100", None, "2024-07-02"),
        ("240000", "+0100", None, "2024-07-02"),
        ("235960", "+0100", None, "2024-07-02"),
        ("", "+0100", None, "2024-07-02"),
        ("103000", "", None, "2024-07-02"),
        ("103000", "+1500", None, "2024-07-02"),
        ("103000", "0100", None, "2024-07-02"),
    ],
)
def test_moments(time: str, offset: str, configured: str | None, expected: str) -> None:
    assert expected == date_time("20240702", time, offset, configured)


def test_moment_without_a_date_is_nothing() -> None:
    assert not date_time("1999.01.02", "103000", "+0100", None)


def test_old_zone_with_odd_seconds_leaves_the_date() -> None:
    assert "1880-01-01" == date_time("18800101", "103000", "", "Europe/Berlin")


def test_zones() -> None:
    assert zone("+14:00") is not None
    assert zone("+14:30") is None
    assert zone("Nowhere/Town") is None
    assert zone("../etc") is None
    assert is_offset("-0330")
    assert not is_offset("+1430")
    assert not is_offset("Europe/Berlin")
