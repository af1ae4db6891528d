"""What `check` finds: faults that would stop a start, and warnings of what a configuration leaves open."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from index import CannotListen, free_space, is_served, outdated_instances
from scp.association.admission import addresses
from scp.daemon.descriptors import raise_limit, shares
from scp.daemon.sockets import bind
from scp.daemon.systemd import TLS_SOCKET
from scp.settings.certificates import expiry_notice
from scp.settings.consistency import Place
from scp.settings.file import Sources, dotted
from scp.settings.sections import Configuration

_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))

# How long systemd waits for a stop of our unit, in seconds; for a longer drain the daemon asks for more.
_LONG_DRAIN = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """What would stop a start: its place in the configuration, and a sentence that names key and value."""

    place: Place
    text: str

    def at(self, sources: Sources) -> str:
        """Return the sentence after the source of the value."""
        key = dotted(self.place)
        return f"{sources.near(self.place)}: {self.text if key in self.text else f'{key}: {self.text}'}"


def find_faults(configuration: Configuration) -> list[str]:
    """Return a sentence for each fault: what would stop a start, and peers and folders that do not exist."""
    start = [fault.text for fault in start_faults(configuration)]
    found = [fault] if (fault := data_fault(configuration.data)) and fault not in start else []
    return [*found, *start, *peer_faults(configuration), *_folder_faults(configuration)]


def start_faults(configuration: Configuration, passed: Sequence[str] = ()) -> list[Fault]:
    """Return the faults of the configuration on this machine which stay until it is changed.

    `passed`: the names of the sockets that the service manager passes to us.
    """
    found = [Fault(("storage", "path"), why)] if (why := _misplaced_data(configuration.data)) else []
    file = configuration.index.file
    # A relative path depends on the folder that the daemon is started in.
    if file and file.is_absolute() and not file.parent.is_dir():
        found.append(Fault(("index", "url"), f"index.url: {file.parent}: no such folder"))
    return found + address_faults(configuration, passed)


def data_fault(data: Path) -> str | None:
    """Return why the data directory cannot be used, or None."""
    if why := _misplaced_data(data):
        return why
    there = _existing(data)
    missing = "" if there == data else f"{data}: no such data directory, and it cannot be made: "
    if not there.exists():
        return f"{missing}{there}: is a link to {there.readlink()}, which is not there"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{missing}{there}: its file system is read-only"
    return None


def _misplaced_data(data: Path) -> str | None:
    """Return why this user cannot have the data directory there, or None."""
    there = _existing(data)
    missing = "" if there == data else f"{data}: no such data directory, and it cannot be made: "
    if not there.exists():
        return None  # a link to a disk that is not mounted yet: no fault of the configuration
    if not there.is_dir():
        return f"{data}: the data directory is a file" if there == data else f"{missing}{there} is a file"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return None  # its cause may be another than the configuration
    if not _is_writable(there):
        return f"{missing}{there}: not writable for user {os.geteuid()}"
    for name in ("index.sqlite", "objects", "incoming", "fhir", "lock"):
        if os.path.lexists(data / name) and not _is_writable(data / name):
            return f"{data / name}: not writable for user {os.geteuid()}"
    return None


def _existing(path: Path) -> Path:
    """Return a path, or the innermost part of it that exists."""
    return next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))


def _folder_faults(configuration: Configuration) -> Iterator[str]:
    folder = configuration.worklist.folder
    if folder and not folder.is_dir():
        yield f"worklist.folder = {folder}: no such folder"
    elif folder and not os.access(folder, os.R_OK | os.X_OK):
        yield f"worklist.folder = {folder}: not readable for user {os.geteuid()}"


def peer_faults(configuration: Configuration) -> list[str]:
    """Return a sentence for each peer whose host has no known address."""
    return [
        f"peers[{number}].host = {peer.host}: no address is known for {peer.aet}"
        for number, peer in enumerate(configuration.peers)
        if peer.host is not None and not addresses(peer.host)
    ]


def find_warnings(configuration: Configuration) -> list[str]:
    """Return a sentence for each thing that is open to every caller, or will soon need attention."""
    return [
        *_open_to_callers(configuration),
        *_open_otherwise(configuration),
        *_missing_for_mado(configuration),
        *_outdated(configuration),
    ]


def _open_to_callers(configuration: Configuration) -> Iterator[str]:
    dicom = configuration.dicom
    is_plain = dicom.tls is None or dicom.tls.plain
    if dicom.host not in _LOOPBACK and is_plain:
        yield f"dicom.host = {dicom.host}: DICOM without TLS is open to every caller of port {dicom.port}"
    if dicom.unknown_callers != "reject":
        may = "echo and store" if dicom.unknown_callers == "store" else "use every service"
        yield f"dicom.unknown_callers = {dicom.unknown_callers}: callers not named in [[peers]] may {may}"
    for number, peer in enumerate(configuration.peers):
        if peer.host is None and not peer.networks:
            yield f"peers[{number}].aet = {peer.aet}: a caller from any address may use this title"
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
        yield f"http.host = {http.host}: HTTP without TLS is open to every caller of port {http.port}"
    if configuration.storage.durability != "power-loss":
        yield "storage.durability = process-crash: acknowledged instances may be lost in a power cut"
    watermark, there = configuration.storage.watermark, _existing(configuration.data)
    if there.exists() and (shortage := free_space(there, watermark).shortage):
        yield f"storage.watermark = {watermark}: {shortage}: every C-STORE is answered A700"
    most = shares(raise_limit())
    if configuration.limits.associations > most.associations:
        wanted = f"limits.associations = {configuration.limits.associations}"
        yield f"{wanted}: {most.total} file descriptors (ulimit -n) are enough for {most.associations}"
    if dicom.timeouts.drain > _LONG_DRAIN:
        yield f"dicom.timeouts.drain = {dicom.timeouts.drain}: a stop may take that many seconds"


def _missing_for_mado(configuration: Configuration) -> Iterator[str]:
    if configuration.fhir.profile == "mado":
        for key in ("base_url", "retrieve_location_uid", "accession_system"):
            if not getattr(configuration.fhir, key):
                yield f"fhir.{key} is not set: MADO wants it, and resources say that it is unknown"


def _outdated(configuration: Configuration) -> Iterator[str]:
    if count := outdated_instances(configuration.data, configuration.index):
        yield f"{count} instances were read with another attribute table: run `imagingstudyd reindex`"


def _is_writable(path: Path) -> bool:
    # By the effective user; false on a read-only file system too.
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


@dataclass(frozen=True, slots=True)
class _Address:
    """Where something listens; its keys begin with `section`."""

    section: str
    host: str
    port: int


def address_faults(configuration: Configuration, passed: Sequence[str] = ()) -> list[Fault]:
    """Return why our addresses cannot be listened on: taken, not ours, a port given twice."""
    listening = _addresses(configuration, passed)
    # A running daemon itself uses the ports.
    refused, pairs = _try_addresses(listening) if not is_served(configuration.data) else ([], set())
    for number, one in enumerate(listening):
        pairs |= {(number, other) for other in range(number) if _exclude_each_other(one, listening[other])}
    twice = [
        Fault(_place(f"{one.section}port"), f"{one.section}port = {one.port}: is {other.section}port too")
        for one, other in ((listening[a], listening[b]) for a, b in sorted(pairs))
    ]
    return [*(Fault(_place(error.key), str(error)) for error in refused), *twice]


def _try_addresses(listening: Sequence[_Address]) -> tuple[list[CannotListen], set[tuple[int, int]]]:
    """Listen on all addresses at one time; return the errors, and the pairs that exclude each other."""
    refused, pairs, open_ports = [], set(), dict[int, int]()
    with ExitStack() as opened:
        for number, one in enumerate(listening):
            try:
                opened.enter_context(bind(one.host, one.port, one.section))
            except CannotListen as error:
                if error.errno == errno.EADDRINUSE and one.port in open_ports:
                    pairs.add((number, open_ports[one.port]))
                else:
                    refused.append(error)
            else:
                open_ports.setdefault(one.port, number)
    return refused, pairs


def _addresses(configuration: Configuration, passed: Sequence[str]) -> list[_Address]:
    dicom, http, worklist = configuration.dicom, configuration.http, configuration.worklist
    found = []
    if (dicom.tls is None or dicom.tls.plain) and not any(name != TLS_SOCKET for name in passed):
        found.append(_Address("dicom.", dicom.host, dicom.port))
    if dicom.tls and TLS_SOCKET not in passed:
        found.append(_Address("dicom.tls.", dicom.tls.host or dicom.host, dicom.tls.port))
    if http.enabled:
        found.append(_Address("http.", http.host, http.port))
    if worklist.hl7_port is not None:
        found.append(_Address("worklist.hl7_", worklist.hl7_host, worklist.hl7_port))
    return found


def _exclude_each_other(one: _Address, other: _Address) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    hosts = {one.host, other.host}
    # An address of IPv6 has a colon; "::" takes IPv4 as well (ipv6(7), IPV6_V6ONLY).
    return len(hosts) == 1 or "::" in hosts or ("0.0.0.0" in hosts and not any(":" in host for host in hosts))  # noqa: S104


def _place(key: str) -> Place:
    return tuple(key.split("."))
