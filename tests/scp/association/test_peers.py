"""What each peer may do: networks, services, transfer syntaxes, limits, users; with foreign clients."""

from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from scp.association.admission import Admission, Grant, Rejection
from scp.association.contexts import supported_contexts
from scp.association.syntaxes import preferred
from scp.settings.sections import Peer
from scp.settings.users import hash_passcode
from support.daemon import Daemon
from support.dicom import instance, save
from support.peer import CT, ECHO, EXPLICIT, IMPLICIT, Parrot, Running, accepted, settings, store_message

WORKLIST, MPPS = "1.2.840.10008.5.1.4.31", "1.2.840.10008.3.1.2.3.3"
SERVICES = {WORKLIST: "worklist", MPPS: "mpps"}
BASE = "1.2.840.10008.1.2"
BASELINE, LOSSLESS, RLE = f"{BASE}.4.50", f"{BASE}.4.70", f"{BASE}.5"
EVERY = ((1, ECHO, (EXPLICIT,)), (3, CT, (IMPLICIT, EXPLICIT, LOSSLESS)), (5, WORKLIST, (EXPLICIT,)))


def decide(address="10.0.0.1", peers=(), user=None, calling="SCU", **dicom):
    return Admission(settings(**dicom), peers, SERVICES).decide(calling, "US", address, user)


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("10.1.2.3", Grant({}, is_known=False)),
        ("192.168.7.9", Grant({}, is_known=False)),
        ("192.168.7.10", Rejection.ADDRESS),
        ("fd00::1", Grant({}, is_known=False)),
        ("fe80::1", Rejection.ADDRESS),
    ],
)
def test_networks_that_may_call(address, verdict):
    assert verdict == decide(address, networks=("10.0.0.0/8", "192.168.7.9", "fd00::/8"))


@pytest.mark.parametrize(("address", "known"), [("10.1.2.3", True), ("127.0.0.1", True), ("10.2.0.1", False)])
def test_a_peer_calls_from_its_networks_or_its_host(address, known):
    assert known == decide(address, [Peer(aet="SCU", host="localhost", networks=("10.1.0.0/16",))]).is_known


def test_adding_a_peer_locks_no_other_caller_out():
    peers = [Peer(aet="CT1", host="10.9.9.9")]
    assert Grant({}, is_known=False) == decide(peers=peers)
    assert Grant({}, is_known=False) == decide(calling="CT1", peers=peers)


@pytest.mark.parametrize(
    ("services", "granted", "store"),
    [
        (None, SERVICES, True),
        (("store",), {}, True),
        (("worklist",), {WORKLIST: "worklist"}, False),
        (("echo",), {}, False),
        (("store", "mpps", "worklist"), SERVICES, True),
    ],
)
def test_services_of_a_peer(services, granted, store):
    assert Grant(granted, is_known=True, store=store) == decide(peers=[Peer(aet="SCU", services=services)])


@pytest.mark.parametrize(
    ("services", "results"),
    [
        (None, {1: 0, 3: 0, 5: 0}),
        (("echo",), {1: 0, 3: 1, 5: 1}),
        (("store",), {1: 0, 3: 0, 5: 1}),
        (("worklist",), {1: 0, 3: 1, 5: 0}),
    ],
)
def test_what_a_peer_may_not_use_is_rejected_by_the_user(services, results):
    """User-rejection, 1 (PS3.8 Table 9-18)."""
    with (
        Running(peers=[Peer(aet="SCU", services=services)], services=SERVICES) as server,
        Parrot(server.port) as peer,
    ):
        _, content = peer.associate(EVERY)
    assert results == {number: result for number, (result, _) in accepted(content).items()}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((), [EXPLICIT, IMPLICIT, LOSSLESS, BASELINE]),
        (("implicit-little-endian", "explicit-little-endian"), [IMPLICIT, EXPLICIT]),
        (("lossless",), [LOSSLESS]),
        (("lossy", LOSSLESS, "explicit-little-endian"), [BASELINE, LOSSLESS, EXPLICIT]),
        ((BASELINE, "lossy", "lossless"), [BASELINE, LOSSLESS]),
        ((RLE,), []),
    ],
)
def test_order_of_transfer_syntaxes(order, expected):
    assert expected == preferred([LOSSLESS, IMPLICIT, BASELINE, EXPLICIT], order)


def test_transfer_syntaxes_of_a_peer():
    peers = [Peer(aet="SCU", transfer_syntaxes=("lossless",)), Peer(aet="RLE", transfer_syntaxes=(RLE,))]
    with Running(peers=peers, transfer_syntaxes=("implicit-little-endian",)) as server:
        found = {}
        for calling in ("SCU", "RLE", "OTHER"):
            with Parrot(server.port) as peer:
                _, content = peer.associate(EVERY[:2], calling=calling)
                found[calling] = accepted(content)
    assert {1: (0, EXPLICIT), 3: (0, LOSSLESS)} == found["SCU"]
    assert {1: (0, EXPLICIT), 3: (0, IMPLICIT)} == found["OTHER"]
    assert [0, 4] == [found["RLE"][number][0] for number in (1, 3)]  # transfer syntaxes not supported


def test_echo_cannot_be_shut_out_by_a_transfer_syntax():
    context = next(iter(supported_contexts([proposal()], {}, order=(RLE,))))
    assert [EXPLICIT] == [str(uid) for uid in context.transfer_syntax]


def proposal():
    ae = AE()
    ae.add_requested_context(ECHO, EXPLICIT)
    return ae.requested_contexts[0]


def test_associations_of_a_peer():
    with (
        Running(peers=[Peer(aet="SCU", associations=2)]) as server,
        Parrot(server.port) as one,
        Parrot(server.port) as two,
        Parrot(server.port) as three,
        Parrot(server.port) as other,
    ):
        assert [0x02, 0x02] == [one.associate()[0], two.associate()[0]]
        assert (0x03, b"\0\x02\x03\x02") == three.associate()
        assert 0x02 == other.associate(calling="OTHER")[0]
        one.release()
        one.close()
        with Parrot(server.port) as again:
            assert until_accepted(server, again)


def until_accepted(server, first):
    """Its place is free when the other association has ended, which takes a moment."""
    for _ in range(100):
        if first.associate()[0] == 0x02:
            return True
        first.close()
        first = Parrot(server.port)
    return False


def test_object_size_of_a_peer(start, tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_text('[[peers]]\naet = "SMALL"\nobject_size = 4096\n')
    daemon: Daemon = start("--config", str(file))
    big = instance()
    big.add_new(0x00091001, "OB", bytes(10_000))
    path = save(big, tmp_path / "big.dcm")
    refused = daemon.send(path, tool="storescu", options=("-v", "-aet", "SMALL"))
    assert "Refused: OutOfResources" in refused.stdout + refused.stderr
    assert "4096 bytes" in daemon.wait_for(lambda event: event.get("status") == "A700")["reason"]
    assert not any(path.is_file() for path in (daemon.data / "objects").rglob("*"))
    assert 0 == daemon.send(path, tool="storescu").returncode


# --- user identity ---------------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path):
    file = tmp_path / "users"
    file.write_text(f"anna:{hash_passcode('open sesame')}\nben:\n")
    return file


def associate(server, kind=None, name=b"", passcode=b"", *, response=False, on_pdu=lambda _pdu: None):
    """Return an association that pynetdicom as requestor negotiated; `on_pdu` is shown what it received."""
    ae = AE("SCU")
    ae.add_requested_context(ECHO)
    items = []
    if kind is not None:
        user = UserIdentityNegotiation()
        user.user_identity_type, user.primary_field = kind, name
        user.secondary_field = passcode if kind == 2 else b""
        user.positive_response_requested = response
        items.append(user)
    watching = [(evt.EVT_PDU_RECV, lambda event: on_pdu(event.pdu))]
    return ae.associate("127.0.0.1", server.port, ext_neg=items, evt_handlers=watching)


CASES = [
    ("optional", None, b"", b"", True),
    ("required", None, b"", b"", False),
    ("required", 2, b"anna", b"open sesame", True),
    ("required", 2, b"anna", b"wrong", False),
    ("optional", 2, b"anna", b"wrong", False),
    ("required", 1, b"anna", b"", False),
    ("required", 1, b"ben", b"", True),
    ("required", 2, b"carl", b"open sesame", False),
    ("required", 5, b"token", b"", False),
]


@pytest.mark.parametrize(("identity", "kind", "name", "passcode", "is_admitted"), CASES)
def test_user_identity(users, identity, kind, name, passcode, *, is_admitted):
    """PS3.7 Section D.3.3.7: rejected permanently by the service-provider (ACSE)."""
    with Running(users=users, user_identity=identity) as server:
        received = []
        assoc = associate(server, kind, name, passcode, on_pdu=received.append)
        if is_admitted:
            assert assoc.is_established
            assert 0x0000 == assoc.send_c_echo().Status
            assoc.release()
        else:
            # Not acceptor.primitive: pynetdicom drops a rejection that comes before it has looked (acse.py).
            assert [(1, 2, 1)] == [(pdu.result, pdu.source, pdu.reason_diagnostic) for pdu in received]


@pytest.mark.parametrize("response", [True, False])
def test_a_verified_user_is_confirmed_where_that_is_asked_for(users, response):
    with Running(users=users, user_identity="required") as server:
        assoc = associate(server, 2, b"anna", b"open sesame", response=response)
        answer = assoc.acceptor.user_identity
        assert assoc.is_established
        assoc.release()
    assert response == (answer is not None)
    assert not response or b"" == answer.server_response


def test_without_users_an_identity_is_passed_over():
    """PS3.7 Section D.3.3.7.1: who does not support it accepts without a response."""
    with Running() as server:
        assoc = associate(server, 2, b"anna", b"wrong", response=True)
        answer = assoc.acceptor.user_identity
        assert assoc.is_established
        assoc.release()
    assert answer is None


def test_an_address_outside_is_rejected_by_the_service_user():
    with Running(networks=("10.0.0.0/8",)) as server, Parrot(server.port) as peer:
        assert (0x03, b"\0\x01\x01\x01") == peer.associate()
    assert [] == server.store.received


def test_a_peer_that_may_not_store_cannot():
    peers = [Peer(aet="SCU", services=("echo",))]
    with Running(peers=peers) as server, Parrot(server.port) as peer:
        peer.associate(EVERY[:2])
        peer.send(store_message(context=3))
        peer.read_pdu()
    assert [] == server.store.received
