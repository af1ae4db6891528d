"""Who may talk with us, and about what: addresses, AE titles, users, services, and how many at one time."""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from scp.settings.sections import DicomSettings, Peer
from scp.settings.users import Users

if TYPE_CHECKING:
    from pynetdicom.pdu_primitives import UserIdentityNegotiation


class Rejection(Enum):
    """Why an association is rejected: result, source, reason (PS3.8 Table 9-21)."""

    # The table knows no reason for an address: permanent, by the service-user, none given.
    ADDRESS = (1, 1, 1)
    CALLING_AET = (1, 1, 3)
    CALLED_AET = (1, 1, 7)
    # PS3.7 Section D.3.3.7: permanent, by the service-provider's ACSE, no reason given.
    USER_IDENTITY = (1, 2, 1)
    LOCAL_LIMIT = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class Grant:
    """What an admitted caller may use besides verification: abstract syntax to service, and storage."""

    services: Mapping[str, str]
    known: bool
    store: bool = True
    # As `scp.syntaxes.preferred` has it.
    syntaxes: Sequence[str] = ()
    # Of its associations at one time, by its AE title, or of all strangers; 0: none.
    associations: int = 0
    # In bytes; None: as for everybody.
    object_size: int | None = None


class Admission:
    """The rules of one configuration. A new configuration makes a new one."""

    def __init__(
        self, dicom: DicomSettings, peers: Sequence[Peer], services: Mapping[str, str], *, strangers: int = 0
    ) -> None:
        """Read the file of users where there is one. Raises ValueError.

        `strangers` is how many associations all strangers together may have; 0: as many as there are.
        """
        self._strangers = strangers
        self._dicom = dicom
        self._peers = tuple(peers)
        self._called = {title.strip() for title in dicom.called_aets}
        self._users = Users(dicom.users) if dicom.users else None
        self.services = dict(services)

    def decide(
        self, calling_aet: str, called_aet: str, address: str, user: "UserIdentityNegotiation | None" = None
    ) -> Grant | Rejection:
        """Admit or reject a caller by address, AE titles and user. May look up a peer's host."""
        address = plain_address(address)
        if self._dicom.networks and not _is_within(address, self._dicom.networks):
            return Rejection.ADDRESS
        if self._called and called_aet.strip() not in self._called:
            return Rejection.CALLED_AET
        peer = next((peer for peer in self._peers if _is(peer, calling_aet, address)), None)
        if peer is None and self._dicom.unknown_callers == "reject":
            return Rejection.CALLING_AET
        if self._users and not self._is_verified(self._users, user):
            return Rejection.USER_IDENTITY
        if peer is not None:
            return self._grant(peer)
        trusted = self._dicom.unknown_callers == "all"
        return Grant(
            self.services if trusted else {},
            known=False,
            syntaxes=self._dicom.transfer_syntaxes,
            associations=self._strangers,
        )

    def may_be_peer(self, calling_aet: str, address: str) -> bool:
        """Tell whether a caller could be one of [[peers]]: as `decide`, but nothing is looked up."""
        named = (peer for peer in self._peers if peer.aet.strip() == calling_aet.strip())
        return any(_could_be(peer, plain_address(address)) for peer in named)

    def _grant(self, peer: Peer) -> Grant:
        allowed = self.services.values() if peer.services is None else peer.services
        return Grant(
            {uid: service for uid, service in self.services.items() if service in allowed},
            known=True,
            store=peer.services is None or "store" in peer.services,
            syntaxes=peer.transfer_syntaxes or self._dicom.transfer_syntaxes,
            associations=peer.associations,
            object_size=peer.object_size,
        )

    def _is_verified(self, users: Users, user: "UserIdentityNegotiation | None") -> bool:
        if user is None:
            return self._dicom.user_identity == "optional"
        return users.verify(user.user_identity_type, user.primary_field or b"", user.secondary_field or b"")


def plain_address(address: str) -> str:
    """Return an IP address in its shortest form; IPv4 addresses mapped into IPv6 become IPv4 again."""
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def addresses(host: str) -> set[str]:
    """Return the addresses of a host by name or address; none where nobody knows it."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()  # a name that nobody knows is nobody's
    return {plain_address(str(entry[4][0])) for entry in found}


def _is(peer: Peer, calling_aet: str, address: str) -> bool:
    if peer.aet.strip() != calling_aet.strip():
        return False
    if peer.host is None and not peer.networks:
        return True
    return _is_within(address, peer.networks) or (peer.host is not None and address in addresses(peer.host))


def _could_be(peer: Peer, address: str) -> bool:
    if peer.host is None:
        return not peer.networks or _is_within(address, peer.networks)
    try:
        return plain_address(peer.host) == address or _is_within(address, peer.networks)
    except ValueError:
        return True  # a name, which takes its time to be looked up


def _is_within(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in networks)
