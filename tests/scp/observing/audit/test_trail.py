"""Audit messages: valid by the standard's schema, sent by every transport, and never in anybody's way.

PS3.15 Sections A.5 to A.7; RFC 5424, 5425, 5426, 6587.
"""

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from pydantic import ValidationError

from index import Access, Actor, NotKept, StudyFacts, Supervisor
from scp.association.admission import Rejection
from scp.observing.audit import events
from scp.observing.audit import trail as trail_module
from scp.observing.audit.codes import LOGIN, SECURITY_CONFIGURATION, Outcome
from scp.observing.audit.http import http_events
from scp.observing.audit.messages import AuditEvent, Party, Source, StudyObject, message
from scp.observing.audit.syslog import syslog_message
from scp.observing.audit.trail import AuditTrail
from scp.settings.audit import AuditSettings, SyslogAddress, syslog_address
from support.daemon import eventually, run
from support.syslog_server import Message, SyslogServer, schema

SOURCE = Source("PACS1", "General Hospital", "IMAGINGSTUDYD")
READER = Party("reader", address="10.0.0.7", is_requestor=True)
STUDY = StudyObject("1.2.3", "P1", "A1", {"1.2.840.10008.5.1.4.1.1.2": 2})


class Index:
    """What the trail asks; `fails`: it cannot be read."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False

    def study_facts(self, uid: str) -> StudyFacts:
        self.asked.append(uid)
        if self.fails:
            raise NotKept("database: away")
        return StudyFacts("P7", "A7", {"1.2.840.10008.5.1.4.1.1.4": 3})

    def catch_up(self, seconds: float | None = None) -> bool:
        return seconds is not None


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
def begun(index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AuditTrail]]:
    monkeypatch.setattr(trail_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(trail_module, "LONGEST_PAUSE", 0.02)
    made: list[AuditTrail] = []

    def begin(address: str, **more: object) -> AuditTrail:
        made.append(AuditTrail(AuditSettings(syslog=address, **more), SOURCE, index, Supervisor()))
        made[-1].start()
        return made[-1]

    yield begin
    for one in made:
        one.stop()


def access(number: int = 1) -> AuditEvent:
    return events.accessed(READER, SOURCE, StudyObject(f"1.2.{number}", "P1"))


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """Return the context of a server with a certificate for this name, and the certificate."""
    certificate, key = folder / "server.pem", folder / "server.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=log"
    command += f" -addext subjectAltName={name} -keyout {key} -out {certificate}"
    assert 0 == run(*command.split()).returncode
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.mark.parametrize("transport", ["udp", "tcp", "unix", "tls"])
def test_every_transport(begun: Callable[..., AuditTrail], tmp_path: Path, transport: str) -> None:
    context, certificate = certified(tmp_path, "IP:127.0.0.1") if transport == "tls" else (None, None)
    server = SyslogServer(transport, tmp_path / "log", context)
    audit = begun(server.address, ca=certificate)
    for number in range(3):
        audit.put(access(number))
    assert eventually(lambda: len(server.received) == 3)
    assert ["1.2.0", "1.2.1", "1.2.2"] == [one.study for one in server.messages]
    # Security/authorization, notice (PS3.15 Section A.6).
    assert {85} == {one.priority for one in server.messages}
    assert server.connections == (transport in ("tcp", "tls"))
    server.close()


def test_a_server_that_is_not_who_it_says_gets_nothing(
    begun: Callable[..., AuditTrail], tmp_path: Path
) -> None:
    context, certificate = certified(tmp_path, "DNS:elsewhere.example")
    server = SyslogServer("tls", tls=context)
    audit = begun(server.address, ca=certificate)
    audit.put(access())
    assert eventually(lambda: server.connections > 2)
    assert [] == server.received
    server.close()


def test_what_is_put_while_the_server_is_away_arrives_in_order(begun: Callable[..., AuditTrail]) -> None:
    server = SyslogServer("tcp")
    audit = begun(server.address)
    audit.put(access(0))
    assert eventually(lambda: len(server.received) == 1)
    server.cut()
    for number in range(1, 20):
        audit.put(access(number))
    assert eventually(lambda: len(server.received) == 20)
    assert [f"1.2.{number}" for number in range(20)] == [one.study for one in server.messages]
    assert 2 == server.connections
    server.close()


def test_nobody_waits_and_what_does_not_fit_is_counted(
    begun: Callable[..., AuditTrail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_module, "MOST", 50)
    server = SyslogServer("tcp")
    server.close()
    audit = begun(server.address)
    began = time.monotonic()
    for number in range(200):
        audit.put(access(number))
    assert time.monotonic() - began < 60
    assert audit.dropped >= 149
    samples = {one.name: one for one in audit.collect()}
    assert samples["imagingstudyd_audit_waiting"].samples[0].value <= 50
    monkeypatch.setattr(trail_module, "FLUSH_SECONDS", 0.1)
    audit.stop()
    assert 200 == audit.dropped + audit.sent
    assert 0 == audit.sent


def test_a_study_is_looked_up_and_the_message_goes_out_without(
    begun: Callable[..., AuditTrail], index: Index
) -> None:
    server = SyslogServer("udp")
    audit = begun(server.address)
    audit.put(events.accessed(READER, SOURCE, StudyObject("1.2.3", looked_up="1.2.3.4")))
    assert eventually(lambda: len(server.received) == 1)
    assert ["1.2.3.4"] == index.asked
    (first,) = server.messages
    assert ("1.2.3", "P7", {"1.2.840.10008.5.1.4.1.1.4": 3}) == (first.study, first.patient, first.classes)
    index.fails = True
    audit.put(events.accessed(READER, SOURCE, StudyObject("1.2.4")))
    assert eventually(lambda: len(server.received) == 2)
    assert ("1.2.4", "<none>") == (server.messages[1].study, server.messages[1].patient)
    server.close()


def test_a_viewer_that_asks_for_each_frame_is_one_access(begun: Callable[..., AuditTrail]) -> None:
    server = SyslogServer("udp")
    audit = begun(server.address)
    for _ in range(50):
        audit.put(access(1))
    audit.put(events.accessed(Party("another", address="10.0.0.8"), SOURCE, StudyObject("1.2.1", "P1")))
    audit.put(access(2))
    assert eventually(lambda: server.of("110103", study="1.2.2"))
    assert ["1.2.1", "1.2.1", "1.2.2"] == [one.study for one in server.messages]
    server.close()


def test_a_message_that_no_datagram_holds_is_dropped(begun: Callable[..., AuditTrail]) -> None:
    server = SyslogServer("udp")
    audit = begun(server.address)
    asked = events.dicom_query("1.2.840.10008.5.1.4.1.2.2.1", bytes(70_000), "1.2.840.10008.1.2")
    audit.put(events.query(SOURCE, READER, asked, Outcome.SUCCESS))
    audit.put(access())
    assert eventually(lambda: len(server.received) == 1)
    assert 1 == audit.dropped
    server.close()


def made() -> dict[str, list[AuditEvent]]:
    """Return an event of each kind."""
    away = Party("ARCHIVE", None, "ARCHIVE", "10.0.0.9")
    studies = {"1.2.3": {"1.2.840.10008.5.1.4.1.1.2": 2}}
    query = events.dicom_query("1.2.840.10008.5.1.4.31", b"\x08\x00", "1.2.840.10008.1.2.1")
    return {
        "110100": [events.activity(SOURCE, "root@host", starts=start) for start in (True, False)],
        "110102": list(events.transfer(SOURCE, READER, away, studies, begins=True)),
        "110104": list(events.transfer(SOURCE, READER, READER, studies, begins=False, why="1 of 2 failed")),
        "110103": [
            events.accessed(READER, SOURCE, STUDY),
            *events.deleted(SOURCE, "series", ["1.2.3"], "P1", None),
        ],
        "110105": list(events.deleted(SOURCE, "study", ["1.2.3"], "", Actor("boss", "127.0.0.1"))),
        "110112": [events.query(SOURCE, away, query, Outcome.MINOR_FAILURE, "identifier")],
        "110113": [
            events.rejected(SOURCE, "calling_aet", "STRANGER        ", "10.0.0.1"),
            events.rejected(SOURCE, "cut_off", "", ""),
            events.alert(SOURCE, READER, SECURITY_CONFIGURATION, "POST /fhir/r5/Subscription"),
        ],
    }


def test_every_kind_is_valid() -> None:
    for code, several in made().items():
        assert several
        for event in several:
            found = Message(syslog_message(message(event, SOURCE), event.at, is_failure=False))
            assert code == found.event
            assert sum(is_requestor for *_, is_requestor in found.parties) <= 1
            source = found.root.find("AuditSourceIdentification")
            assert ("PACS1", "General Hospital") == (
                source.get("AuditSourceID"),
                source.get("AuditEnterpriseSiteID"),
            )


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.binary(max_size=60))
def test_whatever_comes_from_outside_stays_valid(one: str, other: str, query: bytes) -> None:
    party = Party(one, None, other, one, is_requestor=True)
    study = StudyObject(one, other, one)
    asked = events.dicom_query(one, query, "1.2")
    for event in (
        events.accessed(party, SOURCE, study, why=other),
        events.query(SOURCE, party, asked, Outcome.SUCCESS, one),
        events.rejected(SOURCE, one, other, one),
    ):
        content = message(event, SOURCE)
        root = etree.fromstring(content)
        errors = "" if schema().validate(root) else str(schema().error_log)
        # The schema wants tokens of at least one character; a text of blanks is none.
        assert not errors or not (one.strip() and other.strip()), errors


# Method, path, query, status: the events, as event, action, outcome, study.
REQUESTS = [
    ("GET", "/dicom-web/studies", b"PatientID=P1", 200, [("110112", "E", "0", "")]),
    ("GET", "/dicom-web/studies/1.2/series", b"", 200, [("110112", "E", "0", "")]),
    ("GET", "/dicom-web/studies/1.2/series/1.3/instances", b"", 204, [("110112", "E", "0", "")]),
    ("GET", "/dicom-web/studies/1.2", b"", 200, [("110102", "E", "0", "1.2"), ("110104", "R", "0", "1.2")]),
    (
        "GET",
        "/dicom-web/studies/1.2/series/1.3/instances/1.4",
        b"",
        404,
        [("110102", "E", "0", "1.2"), ("110104", "R", "4", "1.2")],
    ),
    (
        "GET",
        "/dicom-web",
        b"requestType=WADO&studyUID=1.2&seriesUID=1.3&objectUID=1.4",
        200,
        [("110102", "E", "0", "1.2"), ("110104", "R", "0", "1.2")],
    ),
    ("GET", "/dicom-web/studies/1.2/metadata", b"", 200, [("110103", "R", "0", "1.2")]),
    (
        "GET",
        "/dicom-web/studies/1.2/series/1.3/instances/1.4/frames/1",
        b"",
        503,
        [("110103", "R", "8", "1.2")],
    ),
    (
        "GET",
        "/dicom-web/studies/1.2/series/1.3/instances/1.4/rendered",
        b"",
        0,
        [("110103", "R", "8", "1.2")],
    ),
    ("DELETE", "/dicom-web/studies/1.2", b"", 204, []),
    ("GET", "/fhir/r4/ImagingStudy/1.2", b"", 200, [("110103", "R", "0", "1.2")]),
    ("GET", "/fhir/r5/ImagingStudy/1.2/_history", b"", 304, [("110103", "R", "0", "1.2")]),
    ("GET", "/fhir/r4/ImagingStudy/1.2/$bundle", b"", 200, [("110103", "R", "0", "1.2")]),
    ("GET", "/fhir/r4/ImagingStudy", b"modality=CT", 200, [("110112", "E", "0", "")]),
    ("POST", "/fhir/r4/ImagingStudy/_search", b"", 200, [("110112", "E", "0", "")]),
    ("GET", "/fhir/r4/Patient/p/$everything", b"", 200, [("110112", "E", "0", "")]),
    ("GET", "/fhir/r4/metadata", b"", 200, []),
    ("POST", "/fhir/r5/Subscription", b"", 201, [("110113", "E", "0", "")]),
    ("DELETE", "/fhir/r5/Subscription/a", b"", 204, [("110113", "E", "0", "")]),
    ("GET", "/changes", b"since=0", 200, [("110112", "E", "0", "")]),
    ("GET", "/studies/1.2", b"", 200, [("110103", "R", "0", "1.2")]),
    ("GET", "/", b"q=Doe", 200, [("110112", "E", "0", "")]),
    ("GET", "/static/page.css", b"", 200, []),
    ("GET", "/dicom-web/studies/1.2", b"", 401, [("110114", "E", "4", "")]),
    ("POST", "/dicom-web/studies", b"", 403, [("110113", "E", "4", "")]),
    ("GET", "/", b"", 421, [("110113", "E", "4", "")]),
    ("GET", "/dicom-web/studies/<script>", b"", 404, []),
]


@pytest.mark.parametrize(("method", "path", "query", "status", "expected"), REQUESTS)
def test_what_requests_mean(
    method: str, path: str, query: bytes, status: int, expected: list[tuple[str, ...]]
) -> None:
    found = []
    for event in http_events(SOURCE, Access("reader", "10.0.0.7", method, path, query, status, 1)):
        one = Message(syslog_message(message(event, SOURCE), event.at, is_failure=False))
        found.append((one.event, one.action, one.outcome, one.study))
        assert ("reader", True) in [(user, is_requestor) for user, _, is_requestor in one.parties] or (
            one.event == "110113"
        )
    assert expected == found


def test_an_answer_that_was_cut_off_is_no_success() -> None:
    cut = Access("reader", "10.0.0.7", "GET", "/dicom-web/studies/1.2", b"", 200, 1, is_whole=False)
    begun, ended = http_events(SOURCE, cut)
    assert ("0", "4", "the answer was cut off") == (begun.outcome, ended.outcome, ended.why)


def test_a_user_who_is_not_known_is_no_node() -> None:
    event = events.rejected(SOURCE, Rejection.USER_IDENTITY.name.lower(), "CT1", "10.0.0.1")
    assert (LOGIN, True) == (event.type, event.parties[0].is_requestor)


def test_who_is_not_known_is_named_by_address() -> None:
    (event,) = http_events(SOURCE, Access("", "10.0.0.7", "GET", "/", b"", 401, 1))
    assert (LOGIN, "10.0.0.7") == (event.type, event.parties[0].user_id)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("udp://log.example", SyslogAddress("udp", "log.example", 514)),
        ("tcp://127.0.0.1:1514", SyslogAddress("tcp", "127.0.0.1", 1514)),
        ("tls://[::1]", SyslogAddress("tls", "::1", 6514)),
        ("/dev/log", SyslogAddress("unix", path="/dev/log")),
    ],
)
def test_addresses(text: str, expected: SyslogAddress) -> None:
    assert expected == syslog_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log.example",
        "http://log.example",
        "udp://",
        "udp://a:0",
        "udp://a:99999",
        "tcp://u@a",
        "tcp://a/b",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValidationError, match="syslog"):
        AuditSettings(syslog=text)


def test_ca_needs_tls(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs syslog = tls"):
        AuditSettings(syslog="udp://a", ca=tmp_path / "ca.pem")
