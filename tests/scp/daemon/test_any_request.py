"""Whatever is asked for is answered: no fault of our own (500), no trace, no hang.

All addresses of a daemon at once, behind its guard: FHIR, DICOMweb, the change feed, the page, monitoring.
"""

import copy
import json
import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import Index
from index.publication.terms.parameters import PARAMETERS
from scp.daemon.health import Health
from scp.daemon.http.application import make_application
from scp.observing.metrics import Metrics
from scp.settings.sections import Configuration
from support.asgi import Answer, Caller
from support.dicom import ROOT, instance, save
from support.dicomweb import pixels
from support.filling import STORAGE

STUDY = f"{ROOT}.1"
DATASETS = (pixels(instance(1, 1, 1)), pixels(instance(1, 1, 2), frames=3), instance(2, 1, 1))
DICOMWEB = ("studies", "series", "instances", "frames", "metadata", "rendered", "thumbnail", "bulkdata")
TEMPLATES = (
    "/fhir/{v}/ImagingStudy", "/fhir/{v}/Patient", "/fhir/{v}/{}", "/fhir/{v}/{}/{}", "/fhir/{v}/metadata",
    "/fhir/{v}/ImagingStudy/{u}", "/fhir/{v}/ImagingStudy/{u}/_history", "/fhir/{v}", "/fhir/{v}/",
    "/fhir/{v}/ImagingStudy/{u}/_history/{}", "/fhir/{v}/ImagingStudy/{u}/$bundle", "/fhir/{}",
    "/fhir/{v}/Patient/{}/$everything", "/fhir/{v}/{}/_search", "/fhir/{v}/ImagingStudy/_search",
    "/fhir/r4/ServiceRequest", "/fhir/r4/ServiceRequest/{}", "/fhir/{v}/Endpoint", "/fhir/{v}/{}/{}/{}",
    "/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances", "/dicom-web/studies/{u}",
    "/dicom-web/studies/{u}/{d}", "/dicom-web/studies/{u}/series/{u}/{d}", "/dicom-web/wado", "/dicom-web/",
    "/dicom-web/studies/{u}/series/{u}/instances/{u}", "/dicom-web/{}/{}",
    "/dicom-web/studies/{u}/series/{u}/instances/{u}/{d}",
    "/dicom-web/studies/{u}/series/{u}/instances/{u}/{d}/{}",
    "/changes", "/health/live", "/health/ready", "/metrics", "/", "/live", "/static/{}", "/studies",
    "/studies/{u}", "/studies/{u}/{}", "/studies/{u}/series/{u}", "/studies/{u}/resources/{v}",
    "/instances/{u}", "/worklist", "/orders/new", "/orders/{}", "/orders/{}/remove", "/operating",
    "/operating/{}", "/operating/retry", "/{}", "/{}/{}",
)  # fmt: skip
UIDS = (STUDY, f"{STUDY}.1", f"{STUDY}.1.1", f"{STUDY}.1.2", f"{ROOT}.2", "1.2.3", "x", "0" * 70, "1..2")
NAMES = [
    *sorted({name for found in PARAMETERS.values() for name in found}),
    "_id", "_lastUpdated", "_count", "_sort", "_summary", "_elements", "_include", "_revinclude", "_total",
    "_format", "_pretty", "_after", "_since", "since", "wait", "limit", "offset", "fuzzymatching", "sort",
    "includefield", "accept", "charset", "window", "viewport", "quality", "requestType", "studyUID", "rows",
    "seriesUID", "objectUID", "contentType", "transferSyntax", "frameNumber", "PatientName", "00100020",
    "StudyDate", "ModalitiesInStudy", "after", "before", "text", "state", "date", "station", "name", "since",
    "until", "RequestAttributesSequence.ScheduledProcedureStepID",
]  # fmt: skip
MODIFIERS = (
    ":missing",
    ":not",
    ":exact",
    ":contains",
    ":identifier",
    ":Patient",
    ".name",
    ".identifier",
    ":",
)
VALUES = (
    "", "*", "?", "all", "true", "false", "1", "0", "-1", "P1", "CT", "|CT", "CT|", "a|b|c", "Patient/1",
    "2026-01-02", "ge2026", "ap0001-01-01", "9999-12-31T23:59:60+14:00",
    "lt10000", "-started", "started,-name",
    "ImagingStudy:patient", "*:*", "text", "count", "json", "xml", "WzAsMF0", "W251bGwsMV0", "WyJhIiw5XQ",
    "20260101-", "-", "\\", "a\\,b", "1,2,linear", "nan", "1e999", "WADO", "9" * 30, "image/png", "=", "^",
    "$",
    "doe*", "*" * 40, "%", "_", "\u017f", "\u0130", "\0", "\ud7ff", "\U0010ffff", *UIDS,
)  # fmt: skip
HEADERS = (
    "accept", "accept-encoding", "content-type", "if-none-match", "if-modified-since", "range", "if-range",
    "prefer", "last-event-id", "authorization", "origin", "sec-fetch-site", "host", "x-forwarded-for",
    "cookie", "content-length", "accept-language", "if-match",
)  # fmt: skip
HEADER_VALUES = (
    "*/*", "text/html", "application/dicom+json", "application/dicom+xml", "application/fhir+json",
    "image/png",
    'multipart/related; type="application/dicom"; transfer-syntax=*', "multipart/related; boundary=B",
    'multipart/related; type="application/dicom"; boundary=B', "application/dicom", "text/event-stream",
    "application/x-www-form-urlencoded", "application/octet-stream", "gzip", "gzip;q=x", "identity;q=0",
    "bytes=0-", "bytes=-5", "bytes=5-1", "bytes=0-1,2-3", 'W/"1"', "*", '"', "Thu, 01 Jan 1970 00:00:00 GMT",
    "handling=strict", "return=minimal", "Bearer x", "http://evil.example", "cross-site", "0", "-1", ";", ",",
)  # fmt: skip
REQUEST = {
    "resourceType": "ServiceRequest",
    "id": "mine",
    "status": "active",
    "intent": "order",
    "subject": {"reference": "#p"},
    "contained": [
        {"resourceType": "Patient", "id": "p", "identifier": [{"value": "P1"}], "name": [{"family": "D"}]}
    ],
    "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": "A1"}],
    "code": {"coding": [{"system": "http://loinc.org", "code": "1", "display": "CT"}], "text": "CT head"},
    "occurrenceDateTime": "2026-01-02T03:04:05Z",
    "reasonCode": [{"text": "pain"}],
    "requester": {"display": "Dr. X"},
    "note": [{"text": "note"}],
}  # fmt: skip
OF_FHIR = re.compile("/fhir/(dstu2|r4|r5)/(?!.*%0A)")
_TOKEN = re.compile(rb'name="token" value="([^"]+)"')

relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
tokens = st.one_of(st.sampled_from((*UIDS, *NAMES, *DICOMWEB, "..", "1", "2,1")), text)


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Return the path of a resource that is there, or nearly."""

    def fill(found: re.Match[str]) -> str:
        some = {"{v}": ("dstu2", "r4", "r5", "r3"), "{u}": UIDS, "{d}": DICOMWEB}.get(found[0])
        return quote(draw(st.sampled_from(some)) if some else draw(tokens), safe=",$.:")

    path = re.sub(r"\{[vud]?\}", fill, draw(st.sampled_from(TEMPLATES)))
    return path + draw(st.sampled_from(("", "", "", "", "/", "//", "/%00", "%2F..")))


parameters = st.tuples(
    st.one_of(
        st.sampled_from(NAMES),
        st.tuples(st.sampled_from(NAMES), st.sampled_from(MODIFIERS)).map("".join),
        text,
    ),
    st.one_of(st.sampled_from(VALUES), text),
)
queries = st.one_of(
    st.lists(parameters, max_size=4).map(
        lambda pairs: "&".join("=".join(quote(one, safe="") for one in pair) for pair in pairs).encode()
    ),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode),
)
latin = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
headers = st.lists(
    st.tuples(st.sampled_from(HEADERS), st.one_of(st.sampled_from(HEADER_VALUES), latin)), max_size=4
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), text, st.just([]), st.just({}), st.just(["x"]),
    st.just({"coding": [1]}), st.sampled_from(VALUES),
)  # fmt: skip


@st.composite
def resources(draw: st.DrawFn) -> bytes:
    """Return an order, alone or in a Bundle, with a few elements replaced."""
    made: Any = json.loads(json.dumps(REQUEST))
    if draw(st.booleans()):
        entry = {
            "fullUrl": "urn:uuid:1",
            "resource": made,
            "request": {"method": "POST", "url": "ServiceRequest"},
        }
        made = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    for _ in range(draw(st.integers(0, 3))):
        node: Any = made
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None:
                break
            if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
                node = node[key]
                continue
            node[key] = copy.deepcopy(draw(scalars))
            break
    return json.dumps(made).encode()


FORM = b"token=TOKEN&uid=" + STUDY.encode() + b"&peer=X&repair=1"
bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    resources(),
    queries,
    st.sampled_from((FORM, b"token=TOKEN", b"\r\n--B\r\n\r\nx\r\n--B--\r\n", b"[" * 2000, b'{"a":' * 500)),
)
TYPES = ("application/fhir+json", "application/x-www-form-urlencoded", "application/dicom", "", "x")
requests = st.tuples(
    st.sampled_from(("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X")),
    paths(),
    queries,
    headers,
    bodies,
    st.sampled_from(TYPES),
)


class Site:
    """A daemon's application over an index with some studies. What is deleted is put back."""

    def __init__(self, folder: Any) -> None:
        self._files = folder / "in"
        for number, dataset in enumerate(DATASETS):
            save(dataset, self._files / f"{number}.dcm")
        self.index = Index(folder / "data", STORAGE)
        self.index.serve()
        self.fill()
        configuration = Configuration(http={"local": "all"})
        app = make_application(self.index, configuration, lambda: Health("ok", {}), Metrics()).app
        self._caller = Caller(app)

    def fill(self) -> None:
        self.index.import_files([self._files])
        self.index._publisher.publish_all()

    def close(self) -> None:
        self._caller.close()
        self.index.close()

    def ask(
        self,
        method: str,
        path: str,
        query: bytes,
        given: list[tuple[str, str]],
        body: bytes,
        kind: str,
    ) -> Answer:
        named = {name for name, _ in given}
        # Most requests say what their content is, and are for us.
        own = [("host", "localhost"), *([("content-type", kind)] if kind and body else [])]
        sent = [*given, *(pair for pair in own if pair[0] not in named)]
        if b"TOKEN" in body:
            page = self._caller.ask("GET", path, headers=[(b"host", b"localhost")])
            token = _TOKEN.search(page.content)
            body = body.replace(b"TOKEN", token[1] if token else b"")
        pieces = [body[:7], body[7:]] if body else []
        encoded = [(name.encode(), value.encode("latin_1")) for name, value in sent]
        answer = self._caller.ask(method, path, query, encoded, pieces)
        if method == "DELETE" and answer.status == 204:
            self.fill()
        return answer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    patch = pytest.MonkeyPatch()
    patch.setattr("index.web.feed.LONGEST_WAIT", 0)  # nobody waits for what does not come
    made = Site(tmp_path_factory.mktemp("any"))
    yield made
    made.close()
    patch.undo()


@pytest.fixture(autouse=True)
def _no_log() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def check(site: Site, request: tuple[Any, ...]) -> None:
    answer = site.ask(*request)
    method, path = request[:2]
    assert 200 <= answer.status < 500, answer
    assert b"Traceback" not in answer.content
    assert "\n" not in "".join(answer.headers.values())
    if method == "HEAD":  # its content is the server's to leave out
        return
    if answer.status in (204, 304):
        assert b"" == answer.content
    # The guard refuses for all (403, 421), and no route has a line break.
    elif answer.status >= 400 and answer.status not in (403, 421) and OF_FHIR.match(path):
        assert "OperationOutcome" == json.loads(answer.content)["resourceType"]


@given(requests)
@settings(relaxed, max_examples=200)
def test_any_request_is_answered(site, request):
    check(site, request)


@pytest.mark.long
@given(requests)
@settings(relaxed, max_examples=20_000)
def test_any_request_is_answered_long(site, request):
    check(site, request)
