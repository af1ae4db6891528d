"""What `check` finds: faults that would stop a start, and warnings of what a configuration leaves open."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from index import (
    DATA_NAMES,
    CannotListen,
    StorageSettings,
    free_space,
    is_served,
    outdated_instances,
    store_fault,
)
from scp.association.admission import addresses, plain_address
from scp.daemon.descriptors import raise_limit, shares
from scp.daemon.sockets import bind, resolve
from scp.daemon.systemd import TLS_SOCKET
from scp.settings.certificates import expiry_notice
from scp.settings.consistency import KeyPath
from scp.settings.file import Sources, dotted
from scp.settings.http import is_loopback
from scp.settings.sections import Configuration

# How long systemd waits for a stop of our unit, in seconds; for a longer drain the daemon asks for more.
_LONG_DRAIN = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """What would stop a start: the key in the configuration, and a sentence that names key and value."""

    key_path: KeyPath
    text: str

    def at(self, sources: Sources) -> str:
        """Return the sentence after the source of the value."""
        key = dotted(self.key_path)
        return f"{sources.near(self.key_path)}: {self.text if key in self.text else f'{key}: {self.text}'}"


def find_faults(configuration: Configuration) -> list[str]:
    """Return a sentence for each fault: what would stop a start, and peers and folders that do not exist."""
    start = [fault.text for fault in start_faults(configuration)]
    fault = data_fault(configuration.data)
    found = [fault.text] if fault and not fault.stays else []
    if configuration.storage.url and (unanswered := store_fault(configuration.storage)):
        found.append(f"storage.url: {unanswered}")
    return [*found, *start, *peer_faults(configuration), *_folder_faults(configuration)]


def start_faults(configuration: Configuration, passed: Collection[str] = ()) -> list[Fault]:
    """Return the faults of the configuration on this machine which stay until it is changed.

    `passed`: the names of the sockets that the service manager passes to us.
    """
    fault = data_fault(configuration.data)
    found = [Fault(("storage", "path"), fault.text)] if fault and fault.stays else []
    file = configuration.index.file
    # A relative path depends on the folder that the daemon is started in.
    if file and file.is_absolute() and not file.parent.is_dir():
        found.append(Fault(("index", "url"), f"index.url: {file.parent}: no such folder"))
    return found + address_faults(configuration, passed)


@dataclass(frozen=True, slots=True)
class DataFault:
    """Why the data directory cannot be used. `stays`: until the configuration or the directory is changed."""

    text: str
    stays: bool


def data_fault(data: Path) -> DataFault | None:
    """Return why this user cannot use the data directory, or None."""
    there = _existing(data)
    missing = "" if there == data else f"{data}: no such data directory, and it cannot be made: "
    if not there.exists():  # perhaps the disk is not mounted yet
        text = f"{missing}{there}: is a link to {there.readlink()}, which is not there"
        return DataFault(text, stays=False)
    if not there.is_dir():
        is_data = there == data
        text = f"{data}: the data directory is a file" if is_data else f"{missing}{there} is a file"
        return DataFault(text, stays=True)
    if os.statvfs(there).f_flag & os.ST_RDONLY:  # perhaps after an I/O error
        return DataFault(f"{missing}{there}: its file system is read-only", stays=False)
    for path in (there, *(data / name for name in (*DATA_NAMES, "lock"))):
        if not _is_writable(path) and os.path.lexists(path):
            return DataFault(f"{missing}{path}: not writable for user {os.geteuid()}", stays=True)
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
        *_open_by_http(configuration),
        *_audited(configuration),
        *_routed(configuration),
        *_missing_for_mado(configuration),
        *_outdated(configuration),
    ]


def _open_to_callers(configuration: Configuration) -> Iterator[str]:
    dicom = configuration.dicom
    is_plain = dicom.tls is None or dicom.tls.plain
    if not is_loopback(dicom.host) and is_plain:
        yield f"dicom.host = {dicom.host}: DICOM without TLS is open to every caller of port {dicom.port}"
    if dicom.unknown_callers != "reject":
        may = "echo and store" if dicom.unknown_callers == "store" else "use every service"
        yield f"dicom.unknown_callers = {dicom.unknown_callers}: callers not named in [[peers]] may {may}"
    for number, peer in enumerate(configuration.peers):
        if peer.host is None and not peer.networks:
            yield f"peers[{number}].aet = {peer.aet}: a caller from any address may use this title"
        if peer.services is None:
            yield f"peers[{number}].services: {peer.aet} may use every service, and so retrieve every study"
    if not dicom.called_aets:
        yield "dicom.called_aets is empty: callers may call us by any AE title"
    if dicom.users and is_plain:
        yield "dicom.users: passcodes travel readable on the port without TLS"


def _open_otherwise(configuration: Configuration) -> Iterator[str]:
    dicom = configuration.dicom
    if dicom.tls and dicom.tls.client_certificates != "required":
        given = dicom.tls.client_certificates
        yield f"dicom.tls.client_certificates = {given}: callers need no certificate of their own"
    if dicom.tls and (notice := expiry_notice(dicom.tls.certificate)):
        yield f"dicom.tls.certificate = {notice}"
    if configuration.storage.durability != "power-loss":
        yield "storage.durability = process-crash: acknowledged instances may be lost in a power cut"
    yield from _stored(configuration.storage)
    watermark, there = configuration.storage.watermark, _existing(configuration.data)
    if there.exists() and (shortage := free_space(there, watermark).shortage):
        yield f"storage.watermark = {watermark}: {shortage}: every C-STORE is answered A700"
    most = shares(raise_limit())
    if configuration.limits.associations > most.associations:
        wanted = f"limits.associations = {configuration.limits.associations}"
        yield f"{wanted}: {most.total} file descriptors (ulimit -n) are enough for {most.associations}"
    if dicom.timeouts.drain > _LONG_DRAIN:
        yield f"dicom.timeouts.drain = {dicom.timeouts.drain}: a stop may take that many seconds"


def _open_by_http(configuration: Configuration) -> Iterator[str]:
    http = configuration.http
    if not http.enabled:
        return
    if not is_loopback(http.host) and http.tls is None:
        yield f"http.host = {http.host}: HTTP without TLS: tokens and images travel readable"
    if http.trust_network and http.local != "nothing":
        may = "read patients" if http.local == "read" else "do everything"
        yield f"http.trust_network = true: whoever reaches port {http.port} may {may}"
    if http.local == "all":
        yield "http.local = all: whoever works on this machine may delete and match"
    if http.subscriptions:
        yield (
            f"http.subscriptions = {', '.join(http.subscriptions)}: whoever has the rights read and write may"
            " have this machine send requests there"
        )
    for prefix in http.subscriptions:
        host = urlsplit(prefix).hostname or ""
        if prefix.startswith("http:") and not is_loopback(host):
            yield f"http.subscriptions = {prefix}: notifications travel readable, without TLS"
    if http.tls and (notice := expiry_notice(http.tls.certificate)):
        yield f"http.tls.certificate = {notice}"


def _audited(configuration: Configuration) -> Iterator[str]:
    address = configuration.audit.address
    if address and address.transport in ("udp", "tcp") and not is_loopback(address.host):
        yield f"audit.syslog = {configuration.audit.syslog}: audit messages travel readable, without TLS"


def _stored(storage: StorageSettings) -> Iterator[str]:
    if storage.acknowledge == "journal":
        yield (
            "storage.acknowledge = journal: until an acknowledged instance is uploaded, it is lost with this "
            "machine's disk, and other nodes cannot read it"
        )
    if (storage.endpoint or "").startswith("http:"):
        yield f"storage.endpoint = {storage.endpoint}: objects travel readable, without TLS"


def _routed(configuration: Configuration) -> Iterator[str]:
    for number, route in enumerate(configuration.routes):
        if route.is_for_all:
            yield f"routes[{number}] has no rule: every instance is sent to {', '.join(route.to)}"


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


def address_faults(configuration: Configuration, passed: Collection[str] = ()) -> list[Fault]:
    """Return why our addresses cannot be listened on: taken, not ours, a port given twice."""
    listening = _addresses(configuration, passed)
    # A running daemon itself uses the ports.
    refused = [] if is_served(configuration.data) else list(_refused(listening))
    twice = [
        Fault(_key_path(f"{one.section}port"), f"{one.section}port = {one.port}: is {other.section}port too")
        for number, one in enumerate(listening)
        for other in listening[:number]
        if _exclude_each_other(one, other)
    ]
    return [*(Fault(_key_path(error.key), str(error)) for error in refused), *twice]


def _refused(listening: Sequence[_Address]) -> Iterator[CannotListen]:
    """Yield why an address cannot be bound."""
    for one in listening:
        try:
            bind(one.host, one.port, one.section).close()
        except CannotListen as error:
            yield error


def _addresses(configuration: Configuration, passed: Collection[str]) -> list[_Address]:
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
    hosts = {_resolved(one), _resolved(other)}
    # An address of IPv6 has a colon; "::" takes IPv4 as well (ipv6(7), IPV6_V6ONLY).
    return len(hosts) == 1 or "::" in hosts or ("0.0.0.0" in hosts and not any(":" in host for host in hosts))  # noqa: S104


def _resolved(address: _Address) -> str:
    try:
        return plain_address(str(resolve(address.host, address.port)[1][0]))
    except (OSError, UnicodeError):
        return address.host


def _key_path(key: str) -> KeyPath:
    return tuple(key.split("."))
