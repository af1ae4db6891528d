"""Queries by DCMTK's findscu and by pynetdicom as SCU, of a running daemon."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from index import NOT_MATCHED, QUERY_KEYS, Index
from scp.association.extended_negotiation import agreed
from support.daemon import Daemon, run, serving
from support.dicom import ROOT, instance, save
from support.filling import STORAGE, keep
from support.query import PATIENT_MODEL, STUDY_MODEL, found, identifier, querying

PEERS = """
[[peers]]
aet = "WS"
services = ["query"]
[[peers]]
aet = "PLAIN"
ignore_accents = true
charset = "ISO_IR 100"
[[peers]]
aet = "STORE"
services = ["store"]
"""
STUDIES = 30
MANY = 400


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with 30 small studies, one with an accent, and one of 400 instances."""
    data = tmp_path_factory.mktemp("ours")
    with Index(data, STORAGE) as index:
        for number in range(1, STUDIES + 1):
            keep(index, instance(number, PatientName=f"Doe^Jane{number}"))
        umlaut = {"PatientName": "Müller^Hänsel", "SpecificCharacterSet": "ISO_IR 192"}
        keep(index, instance(STUDIES + 1, **umlaut))
        for number in range(1, MANY + 1):
            keep(index, instance(99, 1, number, PatientName="Many^Images"))
        index.publish()
    (data / "config.toml").write_text(PEERS)
    yield from serving(data, "--config", str(data / "config.toml"))


def findscu(daemon: Daemon, folder: Path, *keys: str, model: str = "-S") -> tuple[list[Dataset], str]:
    """Query by findscu; return the answers and its output."""
    from pydicom import dcmread

    folder.mkdir(exist_ok=True)
    command = ["findscu", "-v", model, "-X", "-od", str(folder), "-aet", "WS", "-aec", "ANY"]
    command += [part for key in keys for part in ("-k", key)]
    ended = run(*command, "127.0.0.1", str(daemon.port), TCP_NODELAY="1")
    assert 0 == ended.returncode, ended.stderr
    return [dcmread(path) for path in sorted(folder.glob("rsp*.dcm"))], ended.stdout + ended.stderr


def test_findscu_walks_down_from_a_patient_to_its_instances(ours: Daemon, tmp_path: Path) -> None:
    def ask(level: str, wanted: str, *above: str) -> Dataset:
        keys = (f"QueryRetrieveLevel={level}", *above, wanted)
        (answer,), _ = findscu(ours, tmp_path / level, *keys, model="-P")
        assert (level, "IMAGINGSTUDYD") == (answer.QueryRetrieveLevel, answer.RetrieveAETitle)
        return answer

    patient = f"PatientID={ask('PATIENT', 'PatientID', 'PatientName=DOE^JANE7').PatientID}"
    study = f"StudyInstanceUID={ask('STUDY', 'StudyInstanceUID', patient).StudyInstanceUID}"
    series = f"SeriesInstanceUID={ask('SERIES', 'SeriesInstanceUID', patient, study).SeriesInstanceUID}"
    image = ask("IMAGE", "SOPInstanceUID", patient, study, series)
    assert f"{ROOT}.7.1.1" == image.SOPInstanceUID


def test_findscu_in_study_root(ours: Daemon, tmp_path: Path) -> None:
    answers, output = findscu(
        ours, tmp_path, "QueryRetrieveLevel=STUDY", "PatientName=Doe^Jane1?", "StudyDate"
    )
    assert 10 == len(answers)
    assert "Final Find Response (Success)" in output
    answers, output = findscu(ours, tmp_path / "b", "QueryRetrieveLevel=SERIES", "SeriesInstanceUID")
    assert [] == answers
    assert "DataSetDoesNotMatchSOPClass" in output


def test_statuses_and_the_log(ours: Daemon) -> None:
    with querying(ours.port) as association:
        unknown = identifier("STUDY", StudyInstanceUID=f"{ROOT}.1", PatientName=None)
        unknown.PatientComments = ""
        assert [0xFF01, 0x0000] == found(association, unknown)[0]
        assert [0xFF00, 0x0000] == found(association, identifier("STUDY", StudyInstanceUID=f"{ROOT}.1"))[0]
        assert [0xA900] == found(association, identifier("PATIENT", PatientID=None))[0]
        assert [0xA900] == found(association, identifier("STUDY", StudyDate="today"))[0]
        # Still in order: the next query is answered.
        assert [0xFF00, 0x0000] == found(association, identifier("STUDY", StudyInstanceUID=f"{ROOT}.2"))[0]
    why = "QueryRetrieveLevel: must be one of STUDY, SERIES, IMAGE"
    bad = ours.wait_for(lambda event: event.get("event") == "query" and event.get("reason") == why)
    assert "A900" == bad["status"]
    good = ours.wait_for(lambda event: (event.get("calling_aet"), event.get("matches")) == ("WS", 1))
    assert ("query", "0000") == (good["event"], good["status"])
    assert "doe" not in "".join(ours.lines).lower()


def test_extended_negotiation(ours: Daemon) -> None:
    """PS3.4 Section C.5.1.1: byte 1 relational, 2 combined times, 3 names without accents; others are not."""
    asked = identifier("IMAGE", SOPInstanceUID=None, PatientID="P3")
    with querying(ours.port, options=bytes((1, 0, 0, 1, 1, 1))) as association:
        answered = association.acceptor.sop_class_extended
        assert {STUDY_MODEL: bytes((1, 0, 0, 0, 0, 0))} == answered
        statuses, (answer,) = found(association, asked)
        assert ([0xFF00, 0x0000], f"{ROOT}.3.1.1") == (statuses, answer.SOPInstanceUID)
    with querying(ours.port) as association:
        assert {} == association.acceptor.sop_class_extended
        assert [0xA900] == found(association, asked)[0]
    without_accents = identifier("STUDY", StudyInstanceUID=None, PatientName="Muller*")
    with querying(ours.port, options=bytes((0, 0, 1))) as association:
        assert 1 == len(found(association, without_accents)[1])
    with querying(ours.port) as association:
        assert [] == found(association, without_accents)[1]


def test_only_options_of_granted_services_are_agreed_on() -> None:
    assert {} == agreed({"1.2.3": b"\1", STUDY_MODEL: b"\1"}, {})
    assert {} == agreed({"1.2.3": b"\1"}, {"1.2.3": "worklist"})
    assert {STUDY_MODEL: b"\1"} == agreed({STUDY_MODEL: b"\1"}, {STUDY_MODEL: "query"})


def test_a_peer_with_its_character_set_and_without_accents(ours: Daemon) -> None:
    with querying(ours.port, aet="PLAIN") as association:
        _, (answer,) = found(association, identifier("STUDY", PatientName="muller*", StudyInstanceUID=None))
    assert ("ISO_IR 100", "Müller^Hänsel") == (answer.SpecificCharacterSet, str(answer.PatientName))


@pytest.mark.parametrize("aet", ["STRANGER", "STORE"])
def test_who_may_not_query(ours: Daemon, aet: str) -> None:
    ae = AE(aet)
    ae.add_requested_context(STUDY_MODEL)
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", ours.port)
    try:
        assert ["1.2.840.10008.1.1"] == [context.abstract_syntax for context in association.accepted_contexts]
    finally:
        association.release()
    refused = ours.wait_for(
        lambda event: event.get("event") == "services_refused" and event["calling_aet"] == aet
    )
    assert ["query"] == refused["services"]


def test_cancel(ours: Daemon) -> None:
    """PS3.4 Section C.4.1.3: the final response to a cancelled query is FE00."""
    asked = identifier(
        "IMAGE", StudyInstanceUID=f"{ROOT}.99", SeriesInstanceUID=f"{ROOT}.99.1", SOPInstanceUID=None
    )
    with querying(ours.port) as association:
        statuses = []
        for status, _ in association.send_c_find(asked, STUDY_MODEL, msg_id=7):
            statuses.append(status.Status)
            if len(statuses) == 1:
                association.send_c_cancel(7, query_model=STUDY_MODEL)
        assert 0xFE00 == statuses[-1]
        assert len(statuses) < MANY
        # A cancel without a query does nothing; the association goes on.
        association.send_c_cancel(8, query_model=STUDY_MODEL)
        assert [0xFF00, 0x0000] == found(association, identifier("STUDY", StudyInstanceUID=f"{ROOT}.1"))[0]


def test_a_limit(start: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start(IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all", IMAGINGSTUDYD_LIMITS__ANSWERS="2")
    for number in (1, 2, 3):
        daemon.send(save(instance(number), tmp_path / f"{number}.dcm"))
    with querying(daemon.port) as association:
        assert [0xFF00, 0xFF00, 0xA700] == found(association, identifier("STUDY", StudyInstanceUID=None))[0]
        # What has just been acknowledged is found.
        two = identifier("STUDY", StudyInstanceUID=[f"{ROOT}.1", f"{ROOT}.3"])
        assert [0xFF00, 0xFF00, 0x0000] == found(association, two)[0]


def test_ten_thousand_uids(ours: Daemon) -> None:
    uids = [f"{ROOT}.{number}" for number in range(1, 10_001)]
    with querying(ours.port, PATIENT_MODEL, options=b"\1") as association:
        asked = identifier("STUDY", StudyInstanceUID=uids, PatientID=None)
        statuses, answers = found(association, asked, PATIENT_MODEL)
    assert (STUDIES + 2, 0x0000) == (len(answers), statuses[-1])


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_a_sequence_where_a_value_should_be(ours: Daemon, level: str) -> None:
    """Each is answered A900, and the association goes on. A key that is not matched may be anything."""
    item = identifier(None, PatientID="P1")
    study, series = f"{ROOT}.99", f"{ROOT}.99.1"
    above = {"STUDY": {}, "SERIES": {"StudyInstanceUID": study}}.get(
        level, {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    )
    keys = [key for key in QUERY_KEYS[level].values() if key.vr != "SQ"]
    with querying(ours.port) as association:
        for key in keys:
            asked = identifier(level, **above, InstanceNumber="1")
            asked.add_new(key.keyword, "SQ", [item])
            statuses, _ = found(association, asked)
            is_needed = key.matching != NOT_MATCHED or key.keyword == "QueryRetrieveLevel"
            assert ([0xA900] == statuses) == is_needed, (key.keyword, statuses)
        unknown = identifier("STUDY", StudyInstanceUID=f"{ROOT}.1")
        unknown.add_new("PatientComments", "SQ", [item])
        assert [0xFF01, 0x0000] == found(association, unknown)[0]
        good = identifier("STUDY", StudyInstanceUID=f"{ROOT}.1")
        assert [0xFF00, 0x0000] == found(association, good)[0]


def test_what_is_not_an_identifier(ours: Daemon) -> None:
    """A data set that cannot be decoded is answered, and the association goes on."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_FIND

    with querying(ours.port) as association:
        for number, content in enumerate((b"\xff" * 64, b"\x08\x00\x52\x00CS\xff\xff"), start=1):
            request = C_FIND()
            request.MessageID, request.AffectedSOPClassUID, request.Priority = number, STUDY_MODEL, 2
            request.Identifier = BytesIO(content)
            # As pynetdicom's own send_c_find does: the thread that looks for requests waits.
            association._reactor_checkpoint.clear()
            association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
            _, response = association.dimse.get_msg(block=True)
            association._reactor_checkpoint.set()
            assert response.Status in (0xA900, 0xC000), f"{response.Status:04X}"
        assert [0xFF00, 0x0000] == found(association, identifier("STUDY", StudyInstanceUID=f"{ROOT}.1"))[0]
