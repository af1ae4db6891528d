"""What would stop a start: the data directory and the addresses, without a process."""

import os
import socket
from pathlib import Path

import pytest

from scp.daemon.checks import address_faults, data_fault
from scp.daemon.sockets import bind, listen
from scp.settings.sections import Configuration, DicomSettings, HttpSettings
from support.filling import served

NOBODY = 65534


def test_each_name_of_a_data_directory_must_be_writable(tmp_path: Path) -> None:
    """A journal of another user would refuse every C-STORE, after a start without a fault."""
    data = tmp_path / "data"
    with served(data):
        (data / "fhir").mkdir(exist_ok=True)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    for path in (data, *data.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    for name in ("journal", "conflicts", "objects", "incoming", "fhir", "lock", "use.lock", "index.sqlite"):
        os.chown(data / name, 0, 0)
        os.seteuid(NOBODY)
        try:
            fault = data_fault(data)
        finally:
            os.seteuid(0)
        os.chown(data / name, NOBODY, NOBODY)
        assert fault is not None, name
        assert (f"{data / name}: not writable for user {NOBODY}", True) == (fault.text, fault.stays)
    assert data_fault(data) is None


def configuration(data: Path, dicom: tuple[str, int], http: tuple[str, int]) -> Configuration:
    return Configuration(
        dicom=DicomSettings(host=dicom[0], port=dicom[1]),
        http=HttpSettings(host=http[0], port=http[1]),
        storage={"path": data},
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("other", ["127.0.0.1", "localhost", "0.0.0.0", "::"])  # noqa: S104
def test_a_port_that_is_given_twice_is_named(other: str, tmp_path: Path) -> None:
    port = free_port()
    faults = address_faults(configuration(tmp_path, ("127.0.0.1", port), (other, port)))
    assert [f"http.port = {port}: is dicom.port too"] == [fault.text for fault in faults]


def test_one_port_at_two_addresses_is_no_fault(tmp_path: Path) -> None:
    port = free_port()
    assert [] == address_faults(configuration(tmp_path, ("127.0.0.1", port), ("127.0.0.2", port)))


def test_a_port_that_another_process_has_at_one_of_two_addresses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        faults = address_faults(configuration(tmp_path, ("127.0.0.2", port), ("127.0.0.1", port)))
    expected = f"http.host = 127.0.0.1, http.port = {port}: Address already in use"
    assert [expected] == [fault.text for fault in faults]


def test_a_trial_accepts_no_caller() -> None:
    """A connection that is accepted and then reset looks like a daemon that fails."""
    with bind("127.0.0.1", 0, "dicom.") as trial, pytest.raises(ConnectionRefusedError):
        socket.create_connection(trial.getsockname())
    with listen("127.0.0.1", 0, "dicom.") as listening:
        socket.create_connection(listening.getsockname()).close()


@pytest.mark.parametrize(("passed", "faults"), [((), 1), (("dicom",), 0), (("dicom-tls",), 1)])
def test_an_address_whose_socket_is_passed_is_not_tried(
    passed: tuple[str, ...], faults: int, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dicom = ("127.0.0.1", taken.getsockname()[1])
        found = address_faults(configuration(tmp_path, dicom, ("127.0.0.1", 0)), passed)
    assert faults == len(found)
