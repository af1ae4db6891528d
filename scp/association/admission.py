"""Which callers are admitted, and what each may use: by address, AE titles and user."""

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
    """The reasons of a rejection: result, source, reason (PS3.8 Table 9-21)."""

    # The table has no reason for an address: permanent, by the service-user, no reason given.
    ADDRESS = (1, 1, 1)
    CALLING_AET = (1, 1, 3)
    CALLED_AET = (1, 1, 7)
    # PS3.7 Section D.3.3.7: permanent, by the service-provider's ACSE, no reason given.
    USER_IDENTITY = (1, 2, 1)
    LOCAL_LIMIT = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class Grant:
    """What an admitted caller may use besides verification. `services`: abstract syntax to service name."""

    services: Mapping[str, str]
    is_known: bool
    store: bool = True
    # See `scp.association.syntaxes.preferred`.
    syntaxes: Sequence[str] = ()
    # How many associations at one time its AE title, or all unknown callers together, may have; 0: no limit.
    associations: int = 0
    # In bytes; None: the limit for all callers.
    object_size: int | None = None


class Admission:
    """The rules of one configuration."""

    def __init__(
        self,
        dicom: DicomSettings,
        peers: Sequence[Peer],
        services: Mapping[str, str],
        *,
        unknown_limit: int = 0,
    ) -> None:
        """Read the file of users where there is one. Raises ValueError.

        `unknown_limit` is how many associations all unknown callers together may have; 0: no limit.
        """
        self._unknown_limit = unknown_limit
        self._dicom = dicom
        self._peers = tuple(peers)
        self._called = {title.strip() for title in dicom.called_aets}
        self._users = Users(dicom.users) if dicom.users else None
        self.services = dict(services)

    def decide(
        self, calling_aet: str, called_aet: str, address: str, user: "UserIdentityNegotiation | None" = None
    ) -> Grant | Rejection:
        """Admit or reject a caller. May look up the address of a peer's host."""
        address = plain_address(address)
        if self._dicom.networks and not _is_within(address, self._dicom.networks):
            return Rejection.ADDRESS
        if self._called and called_aet.strip() not in self._called:
            return Rejection.CALLED_AET
        peer = next((peer for peer in self._peers if _is_peer(peer, calling_aet, address)), None)
        if peer is None and self._dicom.unknown_callers == "reject":
            return Rejection.CALLING_AET
        if self._users and not self._is_verified(self._users, user):
            return Rejection.USER_IDENTITY
        if peer is not None:
            return self._grant(peer)
        trusted = self._dicom.unknown_callers == "all"
        return Grant(
            self.services if trusted else {},
            is_known=False,
            syntaxes=self._dicom.transfer_syntaxes,
            associations=self._unknown_limit,
        )

    def may_be_peer(self, calling_aet: str, address: str) -> bool:
        """Whether a caller could be one of [[peers]]. No host is looked up."""
        named = (peer for peer in self._peers if peer.aet.strip() == calling_aet.strip())
        return any(_could_be(peer, plain_address(address)) for peer in named)

    def _grant(self, peer: Peer) -> Grant:
        allowed = self.services.values() if peer.services is None else peer.services
        return Grant(
            {uid: service for uid, service in self.services.items() if service in allowed},
            is_known=True,
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
    """Return the addresses of a host, given by name or address; none where it is unknown."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {plain_address(str(entry[4][0])) for entry in found}


def _is_peer(peer: Peer, calling_aet: str, address: str) -> bool:
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
        return True  # a name: to look it up would take time


def _is_within(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in networks)
