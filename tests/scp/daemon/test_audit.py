"""The audit trail of a whole daemon: what foreign clients do, and what the syslog server gets of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.daemon import Daemon, cli, eventually, run
from support.dicom import CT_IMAGE_STORAGE, ROOT, instance, save
from support.subscriptions import TOPIC, r5
from support.syslog_server import Message, SyslogServer

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
DICOM = {"content-type": "application/dicom"}


class Site:
    """A daemon and its syslog server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = SyslogServer("tcp")
        self.options = {
            "IMAGINGSTUDYD_AUDIT__SYSLOG": self.log.address,
            "IMAGINGSTUDYD_AUDIT__SITE_ID": "General Hospital",
        }
        self.daemon = Daemon(
            folder / "data",
            **self.options,
            IMAGINGSTUDYD_HTTP__LOCAL="all",
            IMAGINGSTUDYD_HTTP__SUBSCRIPTIONS='["http://127.0.0.1:9/hooks"]',
            IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all",
            IMAGINGSTUDYD_DICOM__CALLED_AETS='["ANY", "ARCHIVE"]',
        )
        host, port = self.daemon.http
        self.http = httpx.Client(base_url=f"http://{host}:{port}", timeout=120)

    def saved(self, study: int, number: int = 1) -> Path:
        dataset = instance(study, 1, number)
        return save(dataset, self.folder / f"{dataset.SOPInstanceUID}.dcm")

    def one(self, event: str, **wanted: Any) -> Message:
        """Wait for a message, and return it."""
        assert eventually(lambda: self.log.of(event, **wanted)), (event, wanted, self.log.received)
        return self.log.of(event, **wanted)[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("audit"))
    yield made
    made.daemon.stop()
    made.log.close()


def test_a_start_is_told(site: Site) -> None:
    start = site.one("110100", type="110120")
    process = str(site.daemon.process.pid)
    assert (process, "110150", False) == start.parties[0]
    assert ("110151", True) == start.parties[1][1:]
    source = start.root.find("AuditSourceIdentification")
    assert ("IMAGINGSTUDYD", "General Hospital") == (
        source.get("AuditSourceID"),
        source.get("AuditEnterpriseSiteID"),
    )


def test_what_is_stored_is_one_message_for_each_association_and_study(site: Site) -> None:
    files = [site.saved(1), site.saved(1, 2), site.saved(2)]
    assert 0 == site.daemon.send(*files, tool="storescu", options=("-aet", "CT1")).returncode
    for study, count in ((1, 2), (2, 1)):
        told = site.one("110104", study=f"{ROOT}.{study}")
        assert ("C", "0", f"P{study}") == (told.action, told.outcome, told.patient)
        assert {CT_IMAGE_STORAGE: count} == told.classes
        assert ("CT1", "110153", True) == told.parties[0]
        assert "110152" == told.parties[1][1]
        assert f"A{study}" == told.root.find(".//Accession").get("Number")
    # Again: the receiver held copies, which do not change (Table A.5.3.7-1).
    site.daemon.send(files[2], tool="storescu", options=("-aet", "CT1"))
    site.one("110104", study=f"{ROOT}.2", action="R")


def test_a_query_is_told_with_what_was_asked(site: Site) -> None:
    host, port = site.daemon.host, str(site.daemon.port)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=P1")
    run("findscu", "-S", "-aet", "READER", "-aec", "ARCHIVE", *keys, host, port)
    told = site.one("110112", objects={"110181": STUDY_ROOT_FIND})
    assert b"P1" in told.query
    assert told.detail("TransferSyntax").startswith(b"1.2.840.10008.1.2")
    assert [("READER", "110153"), (str(site.daemon.process.pid), "110152")] == [
        (user, role) for user, role, _ in told.parties
    ]


def test_a_retrieval_begins_and_ends(site: Site, tmp_path: Path) -> None:
    files = [site.saved(3), site.saved(3, 2)]
    site.daemon.send(*files, tool="storescu")
    host, port = site.daemon.host, str(site.daemon.port)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ROOT}.3")
    run("getscu", "-S", "-od", str(tmp_path), "-aet", "READER", "-aec", "ARCHIVE", *keys, host, port)
    assert 2 == len(list(tmp_path.iterdir()))
    begun = site.one("110102", study=f"{ROOT}.3")
    ended = site.one("110104", study=f"{ROOT}.3", action="R")
    for told in (begun, ended):
        assert {CT_IMAGE_STORAGE: 2} == told.classes
        assert "P3" == told.patient
        assert ["110153", "110152"] == [role for _, role, _ in told.parties]
        assert ("READER", True) == told.parties[1][::2]
    assert ("E", "0") == (begun.action, ended.outcome)


def test_a_rejected_association_is_an_alert(site: Site) -> None:
    host, port = site.daemon.host, str(site.daemon.port)
    assert 0 != run("echoscu", "-aet", "STRANGER", "-aec", "NOBODY", host, port).returncode
    told = site.one("110113", type="110126", alert="association refused: called aet")
    assert ("4", 84) == (told.outcome, told.priority)
    assert "STRANGER" in [user for user, *_ in told.parties]


def test_dicomweb(site: Site) -> None:
    content = site.saved(4).read_bytes()
    assert 200 == site.http.post("/dicom-web/studies", content=content, headers=DICOM).status_code
    stored = site.one("110104", study=f"{ROOT}.4", action="C")
    assert ({CT_IMAGE_STORAGE: 1}, "P4") == (stored.classes, stored.patient)
    assert ("local", "110153", True) == stored.parties[0]
    site.http.get("/dicom-web/studies?PatientID=P4")
    asked = site.one("110112", objects={"12": "/dicom-web/studies"})
    assert b"PatientID=P4" == asked.query
    site.http.get(f"/dicom-web/studies/{ROOT}.4/metadata")
    assert "P4" == site.one("110103", study=f"{ROOT}.4").patient
    site.http.get(f"/dicom-web/studies/{ROOT}.4")
    site.one("110102", study=f"{ROOT}.4")
    sent = site.one("110104", study=f"{ROOT}.4", action="R")
    assert [("110153", False), ("110152", True)] == [one[1:] for one in sent.parties]


def test_callers_that_are_refused(site: Site) -> None:
    site.http.get("/dicom-web/studies", headers={"Authorization": "Bearer wrong"})
    told = site.one("110114")
    assert ("110122", "E", "4") == (told.type, told.action, told.outcome)
    assert "127.0.0.1" == told.root.find("ActiveParticipant").get("NetworkAccessPointID")
    site.http.get("/fhir/r4/ImagingStudy", headers={"Host": "evil.example"})
    site.one("110113", type="110126", alert="421: GET /fhir/r4/ImagingStudy")


def test_a_subscription_changes_who_is_told_of_studies(site: Site) -> None:
    topic = TOPIC.replace("http://testserver", str(site.http.base_url).rstrip("/"))
    resource = r5("http://127.0.0.1:9/hooks/one") | {"topic": topic}
    assert 201 == site.http.post("/fhir/r5/Subscription", json=resource).status_code
    site.one("110113", type="110129", alert="POST /fhir/r5/Subscription")


def test_deletions_are_told_with_who_has_done_them(site: Site) -> None:
    site.daemon.send(site.saved(5), site.saved(6), tool="storescu")
    assert eventually(lambda: site.daemon.resource(f"{ROOT}.6").exists())
    assert 204 == site.http.delete(f"/dicom-web/studies/{ROOT}.5").status_code
    by_http = site.one("110105", study=f"{ROOT}.5")
    assert ("D", "P5", ("local", "", True)) == (by_http.action, by_http.patient, by_http.parties[0])
    # By a command, which is a process of its own.
    assert 0 == cli("delete", f"{ROOT}.6", "--data", str(site.daemon.data), **site.options).returncode
    by_command = site.one("110105", study=f"{ROOT}.6")
    user, _, is_requestor = by_command.parties[0]
    assert (True, "P6") == (is_requestor, by_command.patient)
    assert "@" in user
    assert str(site.daemon.process.pid) not in [user for user, *_ in by_command.parties]


def test_it_is_counted_and_the_log_names_no_patient(site: Site) -> None:
    site.one("110100")
    text = site.http.get("/metrics").text
    assert 'imagingstudyd_audit_messages_total{outcome="dropped"} 0.0' in text
    assert "imagingstudyd_audit_waiting" in text
    # What the log says has no patient.
    logged = "".join(site.daemon.lines)
    assert os.linesep in logged
    assert '"P5"' not in logged


def test_a_stop_is_told(tmp_path: Path) -> None:
    log = SyslogServer("udp")
    daemon = Daemon(tmp_path / "data", IMAGINGSTUDYD_AUDIT__SYSLOG=log.address)
    assert 0 == daemon.stop()
    assert ["110120", "110121"] == [one.type for one in log.messages]
    log.close()
