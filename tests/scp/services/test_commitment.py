"""Storage commitment by pynetdicom as SCU: reports on the same association, on one of ours, and again."""

import queue
import re
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.dsutils import decode, encode

from scp.services.commitment import BadRequest, _parse_request
from support.daemon import EVENT_SECONDS, Daemon, eventually, serving
from support.dicom import CT_IMAGE_STORAGE, ROOT, instance, save

COMMITMENT = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
STORED = [(CT_IMAGE_STORAGE, f"{ROOT}.1.1.{number}") for number in (1, 2)]
ABSENT = (CT_IMAGE_STORAGE, "1.2.3.4")
OTHER_CLASS = ("1.2.840.10008.5.1.4.1.1.4", f"{ROOT}.1.1.1")


def asked(transaction: str, references: list[tuple[str, str]]) -> Dataset:
    made = Dataset()
    made.TransactionUID = transaction
    made.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        made.ReferencedSOPSequence.append(item)
    return made


class Modality:
    """Asks for commitment, and listens for reports."""

    def __init__(self) -> None:
        self.reports: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        self.status = 0x0000
        # The AE titles of the last report's sender, and of its Retrieve AE Title (0008,0054).
        self.sender = ("", "")
        self.ae = AE("CT1")
        self.ae.add_requested_context(COMMITMENT)
        self.ae.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
        self.server = self.listen(0)
        self.port = self.server.server_address[1]

    def listen(self, port: int):
        return self.ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.take)]
        )

    def stop(self) -> None:
        """Listen no more."""
        if self.server is not None:
            self.server.shutdown()
            self.server = None

    def take(self, event: evt.Event) -> tuple[int, None]:
        information = event.event_information
        self.sender = (event.assoc.requestor.ae_title, information.RetrieveAETitle)
        self.reports.put((event.event_type, information))
        return self.status, None

    def ask(
        self, port: int, references: list[tuple[str, str]], *, stay: bool = False, **changes: object
    ) -> Dataset:
        """Ask on an association of its own; stay on it until the report is there."""
        association = self.ae.associate("127.0.0.1", port, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.take)])
        request = {"action_type": 1, "instance_uid": INSTANCE, **changes}
        status, _ = association.send_n_action(
            asked(generate_uid(), references), request["action_type"], COMMITMENT, request["instance_uid"]
        )
        assert not stay or eventually(lambda: not self.reports.empty())
        association.release()
        return status

    def told(self) -> tuple[int, list[tuple[str, str]], list[tuple[str, str, int]]]:
        kind, said = self.reports.get(timeout=EVENT_SECONDS)
        committed = [
            (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
            for one in said.get("ReferencedSOPSequence", [])
        ]
        failed = [
            (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID), one.FailureReason)
            for one in said.get("FailedSOPSequence", [])
        ]
        return kind, committed, failed

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Take no report on an association of its sender for a while."""
        self.stop()
        yield
        self.server = self.listen(self.port)


@pytest.fixture(scope="module")
def modality() -> Iterator[Modality]:
    made = Modality()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def config(modality: Modality, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(f'[[peers]]\naet = "CT1"\nhost = "127.0.0.1"\nport = {modality.port}\n')
    return file


@pytest.fixture(scope="module")
def daemon(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    for daemon in serving(tmp_path_factory.mktemp("shared") / "data", "--config", str(config)):
        send(daemon, config.parent, 1, 2)
        yield daemon


def send(daemon: Daemon, folder: Path, *numbers: int) -> None:
    for number in numbers:
        save(instance(1, 1, number), folder / "send" / f"{number}.dcm")
    assert 0 == daemon.send(folder / "send").returncode


def test_a_report_on_an_association_of_ours(daemon: Daemon, modality: Modality) -> None:
    before = delivered(daemon)
    assert 0x0000 == modality.ask(daemon.port, STORED).Status
    assert (1, STORED, []) == modality.told()
    assert eventually(lambda: before + 1 == delivered(daemon))


def test_a_report_on_the_same_association(daemon: Daemon, modality: Modality) -> None:
    before = delivered(daemon)
    with modality.silent():
        assert 0x0000 == modality.ask(daemon.port, [*STORED, ABSENT, OTHER_CLASS], stay=True).Status
        assert (2, STORED, [(*ABSENT, 0x0112), (*OTHER_CLASS, 0x0119)]) == modality.told()
        assert eventually(lambda: before + 1 == delivered(daemon))


def test_a_report_after_a_reload_has_the_new_title(
    start: Callable[..., Daemon], config: Path, modality: Modality, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(config.read_text())
    daemon = start("--config", str(file))
    send(daemon, tmp_path, 1, 2)
    file.write_text(f'[dicom]\naet = "RENAMED"\n{config.read_text()}')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for(lambda event: event.get("event") == "reloaded")
    assert 0x0000 == modality.ask(daemon.port, STORED).Status
    assert (1, STORED, []) == modality.told()
    assert ("RENAMED", "RENAMED") == modality.sender


def delivered(daemon: Daemon) -> int:
    return len([event for event in daemon.events[:] if event.get("outcome") == "delivered"])


def test_an_object_whose_file_is_gone(daemon: Daemon, modality: Modality, tmp_path: Path) -> None:
    gone = (CT_IMAGE_STORAGE, f"{ROOT}.1.1.3")
    send(daemon, tmp_path, 3)
    objects = daemon.data / "objects"

    def found() -> list[Path]:
        return [file for file in objects.rglob("*.dcm") if gone[1].encode() in file.read_bytes()]

    assert eventually(lambda: bool(found()))  # the journal has it before
    found()[0].unlink()
    assert 0x0000 == modality.ask(daemon.port, [STORED[0], gone]).Status
    assert (2, STORED[:1], [(*gone, 0x0112)]) == modality.told()
    assert gone[1] == daemon.wait_for(lambda event: event["event"] == "object_damaged")["sop_instance_uid"]


def test_a_report_is_tried_again_after_a_restart(
    start: Callable[..., Daemon], config: Path, modality: Modality, tmp_path: Path
) -> None:
    daemon = start("--config", str(config))
    send(daemon, tmp_path, 1, 2)
    with modality.silent():
        assert 0x0000 == modality.ask(daemon.port, STORED).Status
        said = daemon.wait_for(lambda event: event.get("outcome") == "undelivered")
        assert "cannot be reached" in said["reason"]
        daemon.kill()
    start("--config", str(config))
    assert (1, STORED, []) == modality.told()


def test_requests_that_are_none(daemon: Daemon, modality: Modality) -> None:
    before = len(daemon.named("commitment_asked"))
    assert 0x0123 == modality.ask(daemon.port, STORED, action_type=2).Status
    assert 0x0112 == modality.ask(daemon.port, STORED, instance_uid="1.2.3").Status
    assert 0x0120 == modality.ask(daemon.port, []).Status
    assert eventually(lambda: before + 3 == len(daemon.named("commitment_asked")))
    with urllib.request.urlopen(f"http://{daemon.http[0]}:{daemon.http[1]}/metrics") as answer:
        counted = re.findall(r'service="commitment",status="(\w+)"} 1.0', answer.read().decode())
    assert {"0112", "0120", "0123"} == {*counted} - {"0000"}


def test_a_request_that_is_cut_off_is_refused() -> None:
    """A part of the list would be reported as all of it."""
    encoded = encode(asked("1.2.3", STORED), is_implicit_vr=True, is_little_endian=True) or b""
    for end in (len(encoded) - 1, len(encoded) - 20):
        with pytest.raises(BadRequest, match="ReferencedSOPSequence ends within its value"):
            parsed(encoded[:end])


def parsed(encoded: bytes) -> object:
    event = SimpleNamespace(
        request=SimpleNamespace(RequestedSOPInstanceUID=INSTANCE),
        action_type=1,
        action_information=decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True),
    )
    return _parse_request(cast("Any", event))


def test_a_request_whose_last_uid_is_cut_off_is_refused() -> None:
    """Half a UID would be reported as an instance that is not there, or as another one that is."""
    encoded = encode(asked("1.2.3", STORED), is_implicit_vr=True, is_little_endian=True) or b""
    at = encoded.rindex(STORED[-1][1].encode()) - 4
    longer = encoded[:at] + bytes([encoded[at] + 10]) + encoded[at + 1 :]
    assert parsed(encoded)
    with pytest.raises(BadRequest, match="ReferencedSOPInstanceUID ends within its value"):
        parsed(longer)
