"""What `check` finds before a start does: what would stop it, and what a configuration leaves open."""

import os
from collections.abc import Iterator
from pathlib import Path

from index import is_served
from scp.admission import addresses
from scp.config import Configuration
from scp.listener import bind
from scp.tls import expiry_notice

_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))

# systemd waits so long for a stop in our unit, in seconds; the daemon asks for more where it drains longer.
_LONG_DRAIN = 60


def faults(configuration: Configuration) -> list[str]:
    """Return a sentence for each thing that would stop a start, or keep a peer from being recognised."""
    data = configuration.data
    found = [fault] if (fault := data_fault(data)) else []
    if not is_served(data):  # the ports of a daemon that runs are in use, by itself
        found += _port_faults(configuration)
    return [*found, *peer_faults(configuration)]


def data_fault(data: Path) -> str | None:
    """Return why the data directory cannot be used, or None."""
    if data.exists() and not data.is_dir():
        return f"{data}: the data directory is a file"
    there = next(folder for folder in (data, *data.absolute().parents) if folder.is_dir())
    missing = "" if there == data else f"{data}: no such data directory, and it cannot be made: "
    if not _is_writable(there):
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        why = "its file system is read-only" if read_only else f"not writable for user {os.geteuid()}"
        return f"{missing}{there}: {why}"
    for name in ("index.sqlite", "objects", "incoming", "fhir", "lock"):
        if (data / name).exists() and not _is_writable(data / name):
            return f"{data / name}: not writable for user {os.geteuid()}"
    return None


def peer_faults(configuration: Configuration) -> list[str]:
    """Return a sentence for each peer whose host nobody knows."""
    return [
        f"peers[{number}].host = {peer.host}: no address is known for {peer.aet}"
        for number, peer in enumerate(configuration.peers)
        if peer.host is not None and not addresses(peer.host)
    ]


def openings(configuration: Configuration) -> list[str]:
    """Return a sentence for each thing that is open to whoever can reach it, or will soon need attention."""
    return [*_open_to_callers(configuration), *_open_otherwise(configuration)]


def _open_to_callers(configuration: Configuration) -> Iterator[str]:
    dicom = configuration.dicom
    is_plain = dicom.tls is None or dicom.tls.plain
    if dicom.host not in _LOOPBACK and is_plain:
        yield f"dicom.host = {dicom.host}: DICOM without TLS is open to whoever reaches port {dicom.port}"
    if dicom.unknown_callers != "reject":
        may = "echo and store" if dicom.unknown_callers == "store" else "use every service"
        yield f"dicom.unknown_callers = {dicom.unknown_callers}: callers not named in [[peers]] may {may}"
    for number, peer in enumerate(configuration.peers):
        if peer.host is None and not peer.networks:
            yield f"peers[{number}].aet = {peer.aet}: whoever calls so is taken for it, from any address"
    if not dicom.called_aets:
        yield "dicom.called_aets is empty: callers may call us by any AE title"
    if dicom.users and is_plain:
        yield "dicom.users: passcodes travel readable on the port without TLS"


def _open_otherwise(configuration: Configuration) -> Iterator[str]:
    dicom, http = configuration.dicom, configuration.http
    if dicom.tls and dicom.tls.client_certificates != "required":
        given = dicom.tls.client_certificates
        yield f"dicom.tls.client_certificates = {given}: callers need no certificate of their own"
    if dicom.tls and (notice := expiry_notice(dicom.tls.certificate)):
        yield f"dicom.tls.certificate = {notice}"
    if http.enabled and http.host not in _LOOPBACK:
        yield f"http.host = {http.host}: HTTP without TLS is open to whoever reaches port {http.port}"
    if configuration.storage.durability != "power-loss":
        yield "storage.durability = process-crash: acknowledged instances may be lost in a power cut"
    if dicom.timeouts.drain > _LONG_DRAIN:
        yield f"dicom.timeouts.drain = {dicom.timeouts.drain}: a stop may take that many seconds"
    if configuration.fhir.profile == "mado":
        for key in ("base_url", "retrieve_location_uid", "accession_system"):
            if not getattr(configuration.fhir, key):
                yield f"fhir.{key} is not set: MADO wants it, and resources say that it is unknown"


def _is_writable(path: Path) -> bool:
    # By what we may do, not by who started us; and also where the file system is read-only.
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _port_faults(configuration: Configuration) -> Iterator[str]:
    dicom, http = configuration.dicom, configuration.http
    listening = []
    if dicom.tls is None or dicom.tls.plain:
        listening.append(("dicom", dicom.host, dicom.port))
    if dicom.tls:
        listening.append(("dicom.tls", dicom.tls.host or dicom.host, dicom.tls.port))
    if http.enabled:
        listening.append(("http", http.host, http.port))
    for section, host, port in listening:
        try:
            bind(host, port).close()
        except OSError as error:
            yield f"{section}.host = {host}, {section}.port = {port}: {error.strerror}"
    for number, (section, host, port) in enumerate(listening):
        for other, other_host, other_port in listening[:number]:
            if port and (host, port) == (other_host, other_port):
                yield f"{section}.port = {port}: is {other}.port too"
