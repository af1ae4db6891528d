"""Associations of our own that send objects: TLS, and peers that break the protocol."""

import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scp.association.client import Unreachable, request_association
from scp.association.store_association import AssociationLost, ProposedContext, StoreAssociation
from scp.settings.file import load
from scp.settings.sections import Configuration, ConfigurationError, DicomSettings, Peer
from scp.settings.tls import TlsSettings
from scp.wire.pdus import SEND_LENGTH, BytesSource, message_pdus
from support.archive import Destination
from support.manager import Authority
from support.peer import CT, EXPLICIT, Parrot, p_data, pdu, pdv

PROPOSED = [ProposedContext(CT, [EXPLICIT])]


def opened(configuration: Configuration) -> StoreAssociation:
    made = StoreAssociation()
    made.open(configuration, "DEST", PROPOSED)
    return made


class Scripted:
    """A server that answers the PDUs that it reads with these bytes, one after the other, and then closes."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self._server = socket.create_server(("127.0.0.1", 0))
        self.configuration = Configuration(
            peers=(Peer(aet="DEST", host="127.0.0.1", port=self._server.getsockname()[1]),)
        )
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        connection, _ = self._server.accept()
        peer = Parrot.__new__(Parrot)
        peer.socket = connection
        for answer in self._answers:
            peer.read_pdu()
            peer.send(answer)
        if all(self._answers):
            peer.read_pdu()
        connection.close()
        self._server.close()


def accept() -> bytes:
    """Return an A-ASSOCIATE-AC."""
    destination = Destination()
    with Parrot(destination.port) as peer:
        _, content = peer.associate()
    destination.close()
    return pdu(0x02, content)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (pdu(0x03, b"\0\1\1\7"), "rejects the association (1/1/7)"),
        (pdu(0x07, bytes(4)), "aborts the association"),
        (pdu(0x02, b"\xff" * 80), "its A-ASSOCIATE-AC cannot be read"),
        (pdu(0x05, bytes(4)), "a PDU of type 05"),
        (struct.pack(">BxL", 2, 1 << 31), "2147483648 bytes"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "bytes"),
        (b"", "closed by the peer"),
    ],
)
def test_a_peer_that_does_not_accept(answer: bytes, why: str) -> None:
    with pytest.raises(Unreachable) as raised:
        opened(Scripted(answer).configuration)
    assert why in str(raised.value)
    assert "peer DEST: " in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (pdu(0x05, bytes(4)), "has released the association"),
        (pdu(0x07, bytes(4)), "aborts the association"),
        (p_data(pdv(1, 3, b"nothing")), "the command set"),
        (
            p_data(
                pdv(
                    1,
                    3,
                    struct.pack("<HHLHHHLHHHLH", 0, 0x100, 2, 0x8030, 0, 0x120, 2, 9, 0, 0x800, 2, 0x101),
                )
            ),
            "8030",
        ),
        (b"", "closed by the peer|reset by peer"),
    ],
)
def test_a_peer_that_gives_no_response(answer: bytes, why: str) -> None:
    association = opened(Scripted(accept(), answer).configuration)
    with pytest.raises(AssociationLost, match=why):
        association.store(1, 1, b"\0" * 8, BytesSource(b""))
    association.release()  # nothing more happens


@pytest.mark.parametrize(
    ("max_pdu", "size"),
    [
        *itertools.product([0, 1, 7, 8, 64], [0, 1, 2, 4090]),  # most fragments are small, and many
        *itertools.product([0, 4096, 16384, 1 << 20, (1 << 32) - 1], [0, 1, 2, 4090, 70_001, 300_000]),
    ],
)
def test_a_message_in_pdus(max_pdu: int, size: int) -> None:
    """All fragments but the last have an even length, and no PDU is longer than the peer takes."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    memory = memoryview(bytearray(SEND_LENGTH))
    sent = b"".join(bytes(part) for part in message_pdus(5, b"command!", BytesSource(data), max_pdu, memory))
    parts: dict[int, bytes] = {0: b"", 1: b""}
    controls = []
    while sent:
        kind, length, inner, context, control = struct.unpack_from(">BxLLBB", sent)
        assert (4, 5, length - 4) == (kind, context, inner)
        assert length <= max_pdu or max_pdu < 8
        parts[control & 1] += sent[12 : 6 + length]
        controls.append(control)
        assert control & 2 or inner % 2 == 0 or max_pdu < 8
        sent = sent[6 + length :]
    assert {0: data, 1: b"command!"} == parts
    assert [2] == [control & 2 for control in controls if not control & 1][-1:]
    assert 1 == sum(control == 2 for control in controls)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def tls_settings(authority: Authority, name: str) -> TlsSettings:
    certificate, key = authority.issue(name)
    return TlsSettings(certificate=certificate, key=key, ca=authority.certificate)


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[int]:
    """A destination behind TLS, which asks for our certificate."""
    certificate, key = authority.issue("destination")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    destination = Destination(context=context)
    yield destination.port
    destination.close()


def test_tls(authority: Authority, tls_server: int) -> None:
    configuration = Configuration(
        dicom=DicomSettings(tls=tls_settings(authority, "ours")),
        peers=(Peer(aet="DEST", host="127.0.0.1", port=tls_server, tls=True),),
    )
    association = opened(configuration)
    assert {CT: {EXPLICIT: 1}} == association.contexts
    association.release()


def test_other_associations_of_ours_use_tls_too(authority: Authority, tls_server: int) -> None:
    configuration = Configuration(
        dicom=DicomSettings(tls=tls_settings(authority, "ours2")),
        peers=(Peer(aet="DEST", host="127.0.0.1", port=tls_server, tls=True),),
    )
    with request_association(configuration, "DEST", CT) as association:
        assert association.is_established
        association.abort()


def test_an_interrupt_reaches_an_association_that_is_being_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        configuration = Configuration(peers=(Peer(aet="DEST", host="127.0.0.1", port=port),))
        association = StoreAssociation()
        accepted = []

        def interrupt() -> None:
            accepted.append(silent.accept()[0])
            accepted[0].recv(1)
            association.interrupt()

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(Unreachable, match="DEST: is no longer waited for"):
            association.open(configuration, "DEST", PROPOSED)
        accepted[0].close()


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path, tls_server: int) -> None:
    configuration = Configuration(
        dicom=DicomSettings(tls=tls_settings(Authority(tmp_path / "other", "Other CA"), "ours")),
        peers=(Peer(aet="DEST", host="127.0.0.1", port=tls_server, tls=True),),
    )
    with pytest.raises(Unreachable, match=r"peer DEST: (self-signed certificate|unable to get)"):
        opened(configuration)
    # Reports on storage commitment and the upstream worklist go over such associations.
    with (
        pytest.raises(Unreachable, match=r"peer DEST: TLS: (self-signed certificate|unable to get)"),
        request_association(configuration, "DEST", CT),
    ):
        pass


def test_tls_needs_certificates_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[[peers]]\naet = "DEST"\nhost = "127.0.0.1"\nport = 2762\ntls = true\n')
    with pytest.raises(
        ConfigurationError, match=r"peers\[0\].tls.*needs \[dicom.tls\] with certificate, key"
    ):
        load(file, {})
