"""What the whole daemon asks of peers over TLS, which want its certificate; and routes of a reload."""

import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from support.daemon import Daemon, cli, eventually, serving
from support.dicom import CT_IMAGE_STORAGE, ROOT, data_set_of, encoded, instance, save
from support.manager import Authority
from support.modality import associated
from support.programs import free_port, orthanc, process
from support.worklist import WORKLIST, item

COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
AVAILABILITY = "1.2.840.10008.5.1.4.33"


class Hospital:
    """A worklist of one item, and what takes reports of commitment and notifications, over TLS."""

    def __init__(self, site: Authority) -> None:
        self.reports: list[Dataset] = []
        self.notifications: list[Dataset] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.folder / "hospital.pem", site.folder / "hospital.key")
        context.load_verify_locations(site.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        ae = AE("HOSPITAL")
        ae.add_supported_context(WORKLIST)
        ae.add_supported_context(AVAILABILITY)
        ae.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
        self.server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            ssl_context=context,
            evt_handlers=[
                (evt.EVT_C_FIND, self.find),
                (evt.EVT_N_EVENT_REPORT, self.take_report),
                (evt.EVT_N_CREATE, self.take_notification),
            ],
        )
        self.port = self.server.server_address[1]

    def find(self, _: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, item(1)
        yield 0x0000, None

    def take_report(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append(event.event_information)
        return 0x0000, None

    def take_notification(self, event: evt.Event) -> tuple[int, Dataset]:
        self.notifications.append(event.attribute_list)
        return 0x0000, Dataset()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("site"))
    for name in ("ours", "hospital", "pacs"):
        authority.issue(name)
    return authority


@pytest.fixture(scope="module")
def hospital(site: Authority) -> Iterator[Hospital]:
    made = Hospital(site)
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def ports() -> SimpleNamespace:
    return SimpleNamespace(pacs=free_port(), orthanc=free_port())


@pytest.fixture(scope="module")
def config(
    site: Authority, hospital: Hospital, ports: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("config") / "config.toml"
    peers = {"CT1": hospital.port, "RIS": hospital.port, "PACS": ports.pacs}
    text = "".join(
        f'[[peers]]\naet = "{aet}"\nhost = "127.0.0.1"\nport = {port}\ntls = true\n'
        f"notify = {'true' if aet == 'RIS' else 'false'}\n"
        for aet, port in peers.items()
    )
    text += f'[[peers]]\naet = "ORTHANC"\nhost = "127.0.0.1"\nport = {ports.orthanc}\n'
    folder = site.folder
    text += (
        f'[dicom.tls]\nport = 0\ncertificate = "{folder}/ours.pem"\nkey = "{folder}/ours.key"\n'
        f'ca = "{site.certificate}"\n[worklist.upstream]\npeer = "RIS"\ninterval = 3600\n'
        'query = {ScheduledProcedureStepStartDate = "20260101-"}\n'
    )
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def daemon(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    yield from serving(tmp_path_factory.mktemp("daemon") / "data", "--config", str(config))


def test_an_upstream_worklist(daemon: Daemon) -> None:
    taken = daemon.wait_for(lambda event: event.get("event") == "upstream_worklist")
    assert ("RIS", "0000", 1) == (taken["peer"], taken["status"], taken["items"])
    assert "A1" in cli("worklist", "list", "--data", str(daemon.data)).stdout


def test_a_report_of_commitment_and_the_notification_that_follows(
    daemon: Daemon, hospital: Hospital, tmp_path: Path
) -> None:
    assert 0 == daemon.send(save(instance(7), tmp_path / "7.dcm")).returncode
    asked, reference = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT_IMAGE_STORAGE, f"{ROOT}.7.1.1"
    asked.TransactionUID, asked.ReferencedSOPSequence = "1.2.3", [reference]
    with associated(daemon.port, COMMITMENT) as association:
        status, _ = association.send_n_action(asked, 1, COMMITMENT, WELL_KNOWN_INSTANCE)
        assert 0x0000 == status.Status
    assert eventually(lambda: len(hospital.reports) == 1)
    (committed,) = hospital.reports[0].ReferencedSOPSequence
    assert f"{ROOT}.7.1.1" == committed.ReferencedSOPInstanceUID
    assert eventually(lambda: len(hospital.notifications) == 1)
    assert f"{ROOT}.7" == hospital.notifications[0].StudyInstanceUID
    complete = daemon.wait_for(lambda event: event.get("event") == "study_complete")
    assert ("commitment", 1) == (complete["reason"], complete["instances"])


def test_routes_of_a_reload_to_storescp_over_tls_and_to_orthanc(
    daemon: Daemon, config: Path, site: Authority, ports: SimpleNamespace, tmp_path: Path
) -> None:
    for name in ("pacs", "orthanc", "storage"):
        (tmp_path / name).mkdir()
    assert 0 == daemon.send(save(instance(1), tmp_path / "1.dcm")).returncode
    with config.open("a") as file:
        file.write('[[routes]]\nto = ["PACS", "ORTHANC"]\nmodality = "CT"\n')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for(lambda event: event.get("event") == "reloaded" and event["routes"] == 1)
    tls = ("+tls", str(site.folder / "pacs.key"), str(site.folder / "pacs.pem"), "+cf", str(site.certificate))
    storescp = ("storescp", "+xa", "+B", *tls, "-rc", str(ports.pacs))
    with (
        process(*storescp, folder=tmp_path / "pacs", port=ports.pacs),
        orthanc(tmp_path / "orthanc", daemon.port, ports.orthanc) as call,
    ):
        for number in (2, 3):
            assert 0 == daemon.send(save(instance(number), tmp_path / f"{number}.dcm")).returncode
        assert eventually(lambda: len(list((tmp_path / "pacs").iterdir())) == 2)
        assert eventually(lambda: len(call("/instances")) == 2)  # type: ignore[arg-type]
        kept = [call(f"/instances/{one}/file") for one in call("/instances")]  # type: ignore[attr-defined]
    for number, content in enumerate(kept):
        (tmp_path / "storage" / f"{number}.dcm").write_bytes(content)  # type: ignore[arg-type]
    sent = {f"{ROOT}.{number}.1.1": encoded(instance(number)) for number in (2, 3)}
    for folder in ("pacs", "storage"):
        paths = (tmp_path / folder).iterdir()
        assert sent == {dcmread(path).SOPInstanceUID: data_set_of(path) for path in paths}
