"""The pages of an index: what they show, that all from DICOM is text, and who may have them."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import Index, Right
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep
from support.pages import Pages, said

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
ATTRIBUTES = {
    "PatientName": f"{EVIL}^Jane",
    "PatientID": f"{EVIL}'\"",
    "StudyDescription": EVIL,
    "SeriesDescription": f"{EVIL}\x1b[2J",
    "AccessionNumber": "<b>\"'&",
    "PatientComments": "x" * 9000,
}
STUDY = f"{ROOT}.1"
SERIES = f"{STUDY}.1"
LISTED = re.compile(r'<a href="/studies/([\d.]+)"><bdi>')
PATHS = (
    "/",
    "/studies",
    "/studies?text=script",
    "/studies?state=in+conflict",
    f"/studies/{STUDY}",
    f"/studies/{SERIES.removesuffix('.1')}/series/{SERIES}",
    f"/studies/{STUDY}/resources/r4",
    f"/instances/{SERIES}.1",
    f"/studies/{STUDY}/match",
    "/worklist",
    "/orders/new",
    "/orders/1",
    "/orders/1/remove",
    "/operating",
    *(f"/operating/{action}" for action in ("verify", "retry", "accept", "delete", "reload", "echo")),
)
POSTS = (
    "/orders/new",
    "/orders/1/remove",
    f"/studies/{STUDY}/match",
    f"/studies/{STUDY}/unmatch",
    f"/studies/{STUDY}/rematch",
    "/operating/delete",
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Three studies of strange values, one of them with a conflict; and an order."""
    with Index(tmp_path_factory.mktemp("page") / "data", STORAGE) as index:
        for study in (1, 2, 3):
            for number in (1, 2):
                keep(index, instance(study, 1, number, **ATTRIBUTES))
        keep(index, instance(1, 1, 1, **ATTRIBUTES, StudyTime="235959"))
        assert "Order 1 is" in said(
            Pages(index).post(
                "/orders/new",
                patient_id=EVIL,
                patient_name=EVIL,
                procedure=EVIL,
                station="CT1",
                accession="A",
            )
        )
        index.publish()
        yield index


@pytest.mark.parametrize("path", PATHS)
def test_what_comes_from_dicom_is_text(filled: Index, path: str) -> None:
    page = Pages(filled).get(path)
    assert 200 == page.status_code
    assert "<img src=x" not in page.text
    assert "<script>" not in page.text
    assert "<b>" not in page.text
    assert "\x1b" not in page.text
    assert " style=" not in page.text
    assert " onerror=" not in page.text.replace("onerror=alert(1)&gt;", "")
    policy = page.headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy.split("; "))
    assert "unsafe" not in policy
    assert "no-store" == page.headers["cache-control"]


@pytest.mark.parametrize("path", PATHS)
def test_a_reader_reads_and_operates_nothing(filled: Index, path: str) -> None:
    page = Pages(filled, [Right.READ]).get(path)
    needs_more = path.startswith("/operating/") or path.endswith(("/match", "/new", "/remove"))
    assert (403 if needs_more else 200) == page.status_code
    assert 'method="post"' not in page.text
    assert 401 == Pages(filled, []).get(path).status_code


@pytest.mark.parametrize("path", POSTS)
def test_forms_are_taken_once_from_our_pages_only(filled: Index, path: str) -> None:
    pages = Pages(filled)
    assert 403 == Pages(filled, [Right.READ]).send(path, {}).status_code
    assert 400 == pages.send(path, {}).status_code
    assert 400 == pages.send(path, {"token": "00.00"}).status_code
    assert 1 == len(filled.orders.listed())
    assert 3 == len(filled.studies())


def test_a_token_is_of_one_form_and_of_one_time(filled: Index) -> None:
    pages = Pages(filled)
    token = pages.get("/operating/retry").text.partition('name="token" value="')[2].partition('"')[0]
    assert "not one of" in said(pages.send("/operating/reload", {"token": token}))
    assert "another site" in said(
        pages.send("/operating/retry", {"token": token}, {"Sec-Fetch-Site": "cross-site"})
    )
    assert "evil" in said(pages.send("/operating/retry", {"token": token}, {"Origin": "http://evil.example"}))
    assert "nothing to try again" in said(pages.send("/operating/retry", {"token": token}))
    assert "sent already" in said(pages.send("/operating/retry", {"token": token}))


def test_a_form_has_an_end(filled: Index) -> None:
    pages = Pages(filled)
    assert 400 == pages.send("/orders/new", {"a": "x" * 100_000}).status_code
    assert 400 == pages.send("/orders/new", {f"f{n}": "" for n in range(200)}).status_code


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/studies?state=nothing", 400, "allowed are arriving"),
        ("/studies?since=tomorrow", 400, "allowed is a date"),
        ("/studies?sort=x", 400, "allowed are arrival"),
        ("/studies?after=xyz", 400, "not the address of a page"),
        ("/studies?after=WzEsMV0=&sort=name", 400, "not the address of a page"),
        ("/studies/1.2.3", 404, "1.2.3 is not in the index"),
        ("/studies/..%2F..%2Fetc", 404, ""),
        ("/studies/%3Cscript%3E", 404, "is no Study Instance UID"),
        (f"/studies/{STUDY}/series/1.2", 404, "has no series 1.2"),
        (f"/studies/{STUDY}/resources/r9", 404, "allowed are dstu2, r4, r5"),
        ("/instances/1.2.3", 404, "is not in the index"),
        ("/orders/99999999999999999999999", 404, "is not in the index"),
        ("/worklist?date=x", 400, "allowed is a date"),
        ("/operating/explode", 404, "there is no action"),
        ("/page/..%2Fpage.py", 404, ""),
        ("/page/page.py", 404, ""),
    ],
)
def test_what_is_not_there_is_said(filled: Index, path: str, status: int, why: str) -> None:
    page = Pages(filled).get(path)
    assert status == page.status_code
    assert why in page.text
    assert "<script>" not in page.text


def test_pages_of_the_list_go_on_and_back(filled: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.web.page.studies.PAGE_SIZE", 1)
    pages = Pages(filled)

    def link(page: str, rel: str) -> str:
        found = re.findall(f'href="([^"]+)" rel="{rel}"', page)
        return html.unescape(found[0]) if found else ""

    for sort in ("received", "-received", "name", "-started", "arrival"):
        page, seen = pages.get(f"/studies?sort={sort}&text=Jane").text, []
        assert not link(page, "prev")
        for _ in range(3):
            seen += LISTED.findall(page)
            page = pages.get(link(page, "next") or "/operating").text
        assert 3 == len(seen) == len(set(seen)), sort
        last = pages.get(f"/studies?sort={sort.removeprefix('-') if '-' in sort else f'-{sort}'}&text=Jane")
        assert [seen[-1]] == LISTED.findall(last.text)
        second = pages.get(link(pages.get(f"/studies?sort={sort}&text=Jane").text, "next")).text
        assert [seen[1]] == LISTED.findall(second)
        assert [seen[0]] == LISTED.findall(pages.get(link(second, "prev")).text)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("text=jan", True),
        ("text=ane", True),
        ("text=jane+%3Cscript", True),
        (f"text={STUDY}", True),
        ("text=nobody", False),
        ("modality=ct", True),
        ("modality=mr", False),
        ("since=2026-01-02&until=2026-01-02", True),
        ("until=2026-01-01", False),
        ("state=unmatched", True),
        ("state=arriving", True),
        ("state=in+conflict", True),
        ("state=unpublished", False),
        ("state=incomplete", False),
        ("state=not+forwarded", False),
        ("state=complete", False),
    ],
)
def test_studies_are_found(filled: Index, asked: str, found: bool) -> None:  # noqa: FBT001
    assert found == (f'/studies/{STUDY}"' in Pages(filled).get(f"/studies?{asked}").text)


def test_why_it_is_not_in_the_ehr(filled: Index) -> None:
    page = Pages(filled).get(f"/studies/{STUDY}").text
    assert "No order" in page
    assert "is kept aside" in page
    assert "/operating/accept?path=conflicts/" in page
    assert "version 1" in page


def test_long_values_of_a_header_are_cut(filled: Index) -> None:
    page = Pages(filled).get(f"/instances/{SERIES}.1").text
    assert "9000 bytes, not shown" in page
    assert "x" * 300 not in page
    assert "\\x1b[2J" in page


SEARCHES = st.dictionaries(
    st.sampled_from(
        ["text", "patient", "name", "modality", "since", "until", "state", "sort", "after", "before"]
    ),
    st.text(max_size=20) | st.sampled_from(["*", "name", "-received", "WzEsMV0=", "2026-01-01", "W10="]),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=SEARCHES)
def test_no_search_fails(filled: Index, asked: dict[str, str]) -> None:
    page = Pages(filled).get("/studies?" + urlencode(asked, errors="surrogatepass"))
    assert page.status_code in (200, 400)


def test_operating(tmp_path: Path) -> None:
    """What an operator does, and what is said of it."""
    with Index(tmp_path / "data", STORAGE) as index:
        for number in (1, 2):
            keep(index, instance(1, 1, number))
        keep(index, instance(1, 1, 1, PatientName="Roe^Jane"))
        pages = Pages(index)
        given = {"patient_id": "P1", "patient_name": "Doe^Jane", "station": "CT1"}
        assert "time: 'x' is not a time like 1015" in said(pages.post("/orders/new", **given, time="x"))
        assert "Order 1 is in the worklist" in said(pages.post("/orders/new", **given, time="10:15"))
        assert "10:15" in pages.get("/worklist?station=CT1").text
        assert "No step is scheduled" in pages.get("/worklist?station=CT2").text

        match = f"/studies/{STUDY}/match"
        assert 'value="1" checked' in pages.get(match).text
        assert "is not the number" in said(pages.post(match))
        assert "order 7 is not in the index" in said(pages.post(match, other="7"))
        assert "is matched to order 1" in said(pages.post(match, order="1"))
        assert "/orders/1" in pages.get(f"/studies/{STUDY}").text
        assert f"/studies/{STUDY}" in pages.get("/orders/1").text
        assert "has no order now" in said(pages.post(match, to=f"/studies/{STUDY}/unmatch"))
        assert "rules decide again" in said(pages.post(match, to=f"/studies/{STUDY}/rematch"))

        (aside,) = index.kept_aside(STUDY)
        assert "is no data set in conflict" in said(pages.post("/operating/accept", path="conflicts/x"))
        assert "now has the data set" in said(pages.post("/operating/accept", path=aside.path))
        (other,) = index.kept_aside(STUDY)
        assert aside.path != other.path
        index.publish()
        assert "Roe" in pages.get(f"/instances/{SERIES}.1").text
        assert "Verified: 0 faults" in said(pages.post("/operating/verify"))

        assert "x is not a UID" in said(pages.post("/operating/delete", uid="x"))
        assert "Deleted instance" in said(pages.post("/operating/delete", uid=f"{SERIES}.2"))
        assert "Deleted study" in said(pages.post("/operating/delete", uid=STUDY))
        assert "is none of the peers" in said(pages.post("/operating/echo", peer="NOBODY"))
        assert "no daemon runs" in said(pages.post("/operating/reload"))
        assert "are removed" in said(pages.post("/orders/1/remove"))
        assert 404 == pages.get("/orders/1").status_code


def test_an_empty_index(tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE) as index:
        pages = Pages(index)
        assert "There is no study yet" in pages.get("/").text
        assert "No study is like that" in pages.get("/studies").text
        assert "No step is scheduled" in pages.get("/worklist").text
