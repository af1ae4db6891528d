"""The worklist by findscu, and beside DCMTK's wlmscpfs on the same files."""

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from index import Index, Supervisor, UpstreamSettings
from scp.association.client import Unreachable
from scp.services.upstream import UpstreamWorklist
from scp.settings.sections import Configuration, DicomSettings, Peer
from support.daemon import Daemon, eventually, serving
from support.dicom import instance, save
from support.filling import STORAGE, served
from support.modality import associated
from support.worklist import WORKLIST, findscu, item, query, wlmscpfs, write

ITEMS = [
    item(1),
    item(2, PatientName="DOE^JOHN", ScheduledStationAETitle="MR1", Modality="MR"),
    item(3, PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう", SpecificCharacterSet="ISO_IR 192"),
    item(4, PatientName="Müller^Hänsel", ScheduledProcedureStepStartDate="20260103"),
    item(5, ScheduledProcedureStepStartTime="0815", ScheduledProcedureStepStartDate="20260105"),
    item(6, ScheduledProcedureStepStartTime="180000", ScheduledProcedureStepStartDate="20260107"),
    item(7, PatientID="AB[1]", Modality="US", ScheduledStationAETitle="US1"),
    item(8, ScheduledPerformingPhysicianName="House^Gregory", PatientName="Doe-Smith^Ann^Mary^Dr"),
    item(9, AccessionNumber="", ScheduledStationAETitle="CT2"),
    item(10, ScheduledProcedureStepStartDate="20251231", ScheduledProcedureStepStartTime="235959"),
]

# 30 queries that both answer, and the numbers of the items that match.
QUERIES = [
    ({}, range(1, 11)),
    ({"PatientName": "*"}, range(1, 11)),
    ({"PatientName": "Doe^Jane1"}, (1,)),
    ({"PatientName": "Doe^Jane*"}, (1, 5, 6, 7, 9, 10)),
    ({"PatientName": "Doe^Jane?"}, (1, 5, 6, 7, 9)),
    ({"PatientName": "*Ann*"}, (8,)),
    ({"PatientName": "Nobody"}, ()),
    ({"PatientID": "P2"}, (2,)),
    ({"PatientID": "p2"}, ()),
    ({"PatientName": "DOE^JOHN"}, (2,)),
    ({"ScheduledProcedureStepStartTime": "-0900"}, (5,)),
    ({"PatientID": "AB[1]"}, (7,)),
    ({"ScheduledPerformingPhysicianName": "*"}, range(1, 11)),
    ({"PatientID": "A[B]*"}, ()),
    ({"AccessionNumber": "A3"}, (3,)),
    ({"RequestedProcedureID": "RP4"}, (4,)),
    ({"Modality": "CT"}, (1, 3, 4, 5, 6, 8, 9, 10)),
    ({"Modality": "MR"}, (2,)),
    ({"Modality": "XA"}, ()),
    ({"ScheduledStationAETitle": "CT1"}, (1, 3, 4, 5, 6, 8, 10)),
    ({"ScheduledStationAETitle": "US1"}, (7,)),
    ({"ScheduledStationAETitle": "CT2", "Modality": "CT"}, (9,)),
    ({"ScheduledProcedureStepStartDate": "20260102"}, (1, 2, 3, 7, 8, 9)),
    ({"ScheduledProcedureStepStartDate": "20260103-20260105"}, (4, 5)),
    ({"ScheduledProcedureStepStartDate": "20260105-"}, (5, 6)),
    ({"ScheduledProcedureStepStartDate": "-20260101"}, (10,)),
    (
        {"ScheduledProcedureStepStartDate": "20260102", "ScheduledProcedureStepStartTime": "101500"},
        (1, 2, 3, 7, 8, 9),
    ),
    ({"ScheduledProcedureStepStartTime": "1700-1900"}, (6,)),
    (
        {
            "ScheduledProcedureStepStartDate": "20260103-20260105",
            "ScheduledProcedureStepStartTime": "1100-1700",
        },
        (5,),
    ),
    ({"ScheduledPerformingPhysicianName": "House*"}, (8,)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worklists")
    for number, one in enumerate(ITEMS, start=1):
        write(one, folder / "WL" / f"{number}.wl")
    return folder


@pytest.fixture(scope="module")
def dcmtk(folder: Path) -> int:
    with wlmscpfs(folder) as port:
        yield port


ALL = {"IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS": "all"}


PEERS = """
[[peers]]
aet = "OLD"
charset = "ISO_IR 100"
[[peers]]
aet = "NEW"
charset = "ISO_IR 192"
[[peers]]
aet = "PLAIN"
ignore_accents = true
"""


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    data = tmp_path_factory.mktemp("ours")
    index = Index(data, STORAGE)
    assert len(ITEMS) == index.orders.import_files([folder / "WL"]).taken
    index.close()
    (data / "config.toml").write_text(PEERS)
    yield from serving(data, "--config", str(data / "config.toml"), **ALL)


@pytest.mark.parametrize(("wanted", "matches"), QUERIES, ids=lambda value: str(value)[:60])
def test_the_same_matches_as_wlmscpfs(
    wanted: dict[str, str], matches: tuple[int, ...], ours: Daemon, dcmtk: int, tmp_path: Path
) -> None:
    assert 30 == len(QUERIES)
    mine, _ = findscu(ours.port, query(**wanted), tmp_path)
    theirs, _ = findscu(dcmtk, query(**wanted), tmp_path)

    assert sorted(f"RP{number}" for number in matches) == sorted(one.RequestedProcedureID for one in mine)
    assert sorted(one.RequestedProcedureID for one in mine) == sorted(
        one.RequestedProcedureID for one in theirs
    )


# --- what wlmscpfs has nothing to compare with ---


@pytest.fixture
def configured(start: Callable[..., Daemon], tmp_path: Path) -> Callable[..., Daemon]:
    """Start a daemon that has these items; keyword arguments are of `[worklist]`."""

    def starter(*items: Dataset, **worklist: str) -> Daemon:
        for number, one in enumerate(items, start=1):
            write(one, tmp_path / "wl" / f"{number}.wl")
        index = Index(tmp_path / "data", STORAGE)
        assert len(items) == index.orders.import_files([tmp_path / "wl"]).taken
        index.close()
        keys = {f"IMAGINGSTUDYD_WORKLIST__{key.upper()}": value for key, value in worklist.items()}
        return start(**ALL, **keys)

    return starter


def test_the_caller_is_logged_without_patient_data(ours: Daemon, tmp_path: Path) -> None:
    answers, ended = findscu(ours.port, query(PatientName="Doe^Jane1"), tmp_path, aet="LOGGED")
    event = ours.wait_for(
        lambda event: (event.get("event"), event.get("calling_aet")) == ("worklist_query", "LOGGED")
    )
    assert (1, 1, "0000") == (len(answers), event["matches"], event["status"])
    assert event["seconds"] < 5
    assert "doe" not in "".join(ours.lines).lower()
    assert 0 == ended.returncode


def test_statuses_of_a_query(configured: Callable[..., Daemon]) -> None:
    daemon = configured(*ITEMS, limit="4")
    assert statuses(daemon, query(PatientID="P1")) == [0xFF00, 0x0000]
    assert statuses(daemon, query(PatientID="P1", WindowCenter="40")) == [0xFF01, 0x0000]
    assert statuses(daemon, query(ScheduledProcedureStepStartDate="today")) == [0xA900]
    assert statuses(daemon, query()) == [0xFF00] * 4 + [0xA700]
    # Still in order: the next query is answered.
    assert statuses(daemon, query(PatientID="P2")) == [0xFF00, 0x0000]


def statuses(daemon: Daemon, asked: Dataset) -> list[int]:
    with associated(daemon.port, WORKLIST) as association:
        return [status.Status for status, _ in association.send_c_find(asked, WORKLIST)]


def test_cancel(configured: Callable[..., Daemon]) -> None:
    daemon = configured(*(item(number) for number in range(1, 301)))
    with associated(daemon.port, WORKLIST) as association:
        seen = []
        for status, _ in association.send_c_find(query(), WORKLIST, msg_id=7):
            seen.append(status.Status)
            if len(seen) == 1:
                association.send_c_cancel(7, query_model=WORKLIST)
    assert 0xFE00 == seen[-1]
    assert len(seen) < 300
    daemon.kill()  # instead of publishing 300 orders


def test_character_sets_as_peers_are_configured(ours: Daemon, tmp_path: Path) -> None:
    asked = query(ScheduledProcedureStepStartDate="20260102-20260103")
    found = {
        aet: {
            one.RequestedProcedureID: one
            for one in findscu(ours.port, asked, tmp_path, aet=aet)[0]
            if one.RequestedProcedureID in ("RP3", "RP4")
        }
        for aet in ("OLD", "NEW", "CT1")
    }
    assert {
        "OLD": {"RP4": "ISO_IR 100", "RP3": "ISO_IR 192"},
        "NEW": {"RP4": "ISO_IR 192", "RP3": "ISO_IR 192"},
        "CT1": {"RP4": "ISO_IR 100", "RP3": "ISO_IR 192"},
    } == {
        aet: {number: one.SpecificCharacterSet for number, one in answers.items()}
        for aet, answers in found.items()
    }
    for answers in found.values():
        assert {"Müller^Hänsel", "Yamada^Tarou=山田^太郎=やまだ^たろう"} == {
            str(one.PatientName) for one in answers.values()
        }


def test_a_peer_may_have_names_matched_without_accents(ours: Daemon, tmp_path: Path) -> None:
    found = {
        aet: findscu(ours.port, query(PatientName="Muller^HANSEL"), tmp_path, aet=aet)[0]
        for aet in ("PLAIN", "NEW")
    }
    assert {"PLAIN": ["RP4"], "NEW": []} == {
        aet: [one.RequestedProcedureID for one in answers] for aet, answers in found.items()
    }


def test_steps_for_any_station(configured: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = configured(ITEMS[0], item(2, ScheduledStationAETitle=""), fill_station="true")
    asked = query(ScheduledStationAETitle="US7")
    (mine,), _ = findscu(daemon.port, asked, tmp_path, aet="US7")
    assert ("RP2", "US7") == (
        mine.RequestedProcedureID,
        mine.ScheduledProcedureStepSequence[0].ScheduledStationAETitle,
    )
    assert [] == findscu(daemon.port, asked, tmp_path, aet="US8")[0]


def test_old_steps_leave_the_worklist(configured: Callable[..., Daemon], tmp_path: Path) -> None:
    today = f"{datetime.now().astimezone():%Y%m%d}"
    daemon = configured(
        item(1, ScheduledProcedureStepStartDate="20200101"),
        item(2, ScheduledProcedureStepStartDate=today),
        expire_days="2",
    )
    assert ["RP2"] == [one.RequestedProcedureID for one in findscu(daemon.port, query(), tmp_path)[0]]


def test_instances_end_a_step_where_there_is_no_mpps(
    configured: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = configured(ITEMS[0], item(2, Modality="MR"), without_mpps='["STORESCU"]')
    for number in (1, 2):
        image = instance(
            StudyInstanceUID=ITEMS[number - 1].StudyInstanceUID, PatientID=f"P{number}", number=number
        )
        image.SOPInstanceUID = f"1.2.826.0.1.3680043.10.1555.99.{number}"
        daemon.send(save(image, tmp_path / f"{number}.dcm"), tool="storescu")

    def left() -> list[str]:
        return [one.RequestedProcedureID for one in findscu(daemon.port, query(), tmp_path)[0]]

    # The second order asks for MR, and CT came.
    assert eventually(lambda: ["RP2"] == left()), left()


def test_unknown_callers_get_no_worklist(shared_daemon: Daemon, tmp_path: Path) -> None:
    answers, ended = findscu(shared_daemon.port, query(), tmp_path)
    assert ([], False) == (answers, ended.returncode == 0)


# --- an upstream worklist ---


def test_an_answer_that_cannot_be_decoded_is_a_bad_item() -> None:
    def status(code: int) -> Dataset:
        made = Dataset()
        made.Status = code
        return made

    class Answering:
        """An association whose second answer pynetdicom could not decode."""

        def send_c_find(self, *_: object):
            yield status(0xFF00), item(1)
            yield status(0xFF00), None
            yield status(0x0000), None

    settings = UpstreamSettings(peer="UP")
    upstream = UpstreamWorklist(SimpleNamespace(workers=Supervisor()), settings, Configuration)
    assert ([item(1), Dataset()], 0x0000) == upstream._answers(Answering())


def test_an_upstream_worklist_is_queried_by_the_settings_in_force(tmp_path: Path) -> None:
    """A reload changes our AE title, the peers and the timeouts."""
    titles: list[str] = []

    def find(event: evt.Event) -> Iterator[tuple[int, None]]:
        titles.append(event.assoc.requestor.ae_title)
        yield 0x0000, None

    ae = AE("UP")
    ae.add_supported_context(WORKLIST)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    peer = Peer(aet="UP", host="127.0.0.1", port=server.server_address[1])
    try:
        with served(tmp_path / "data") as index:
            in_force = Configuration(dicom=DicomSettings(aet="FIRST"))
            upstream = UpstreamWorklist(index, UpstreamSettings(peer="UP"), lambda: in_force)
            with pytest.raises(Unreachable, match=r"peer UP: not in \[\[peers\]\]"):
                upstream.query()
            in_force = Configuration(dicom=DicomSettings(aet="SECOND"), peers=(peer,))
            upstream.query()
    finally:
        server.shutdown()
    assert ["SECOND"] == titles


def test_an_upstream_worklist_is_followed(start: Callable[..., Daemon], folder: Path, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    shutil.copytree(folder / "WL", upstream / "WL")
    config = tmp_path / "config.toml"
    with wlmscpfs(upstream) as port:
        config.write_text(
            f'[[peers]]\naet = "WL"\nhost = "127.0.0.1"\nport = {port}\n'
            '[worklist.upstream]\npeer = "WL"\ninterval = 0.2\n'
            'query = {ScheduledProcedureStepStartDate = "20260101-", Modality = "CT"}\n'
        )
        daemon = start("--config", str(config), **ALL)

        def ours_now() -> list[str]:
            return sorted(one.RequestedProcedureID for one in findscu(daemon.port, query(), tmp_path)[0])

        assert eventually(lambda: ["RP1", "RP3", "RP4", "RP5", "RP6", "RP8", "RP9"] == ours_now()), ours_now()
        (yamada,), _ = findscu(daemon.port, query(PatientName="山田*"), tmp_path)
        assert "SPS3" == yamada.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID

        (upstream / "WL" / "9.wl").unlink()
        write(item(1, PatientName="Doe^Changed"), upstream / "WL" / "1.wl")
        assert eventually(lambda: "RP9" not in ours_now())
        (changed,), _ = findscu(daemon.port, query(PatientID="P1"), tmp_path)
        assert "Doe^Changed" == str(changed.PatientName)
    daemon.wait_for(lambda event: event.get("event") == "upstream_failed")
    assert ["RP1", "RP3", "RP4", "RP5", "RP6", "RP8"] == ours_now()
