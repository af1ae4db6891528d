"""Unknown callers never use up all associations (`limits.associations`): peers get in."""

import contextlib
import ssl
from collections.abc import Iterator

import pytest
import structlog

from scp.association.admission import Admission
from scp.association.quota import limit_for_unknown_callers
from scp.observing.metrics import Metrics
from scp.settings.sections import LimitsSettings, Peer, TlsSettings
from support.manager import Authority
from support.peer import CT, ECHO, EXPLICIT, Parrot, Running, associate_rq, item, pdu, store_message, until

PEERS = [Peer(aet="KNOWN")]


@contextlib.contextmanager
def calling(port, *titles) -> Iterator[list[tuple[int, bytes]]]:
    """Associate under these titles, one after the other; yield the answers while all stay."""
    with contextlib.ExitStack() as held:
        answers = []
        for title in titles:
            peer = held.enter_context(Parrot(port))
            answers.append(peer.associate(calling=title))
        yield answers


def accepted(answers):
    return [kind == 0x02 for kind, _ in answers]


@pytest.mark.parametrize(
    ("associations", "peers", "expected"),
    [(600, PEERS, 540), (600, [], 600), (10, PEERS, 9), (5, PEERS, 4), (2, PEERS, 1), (1, PEERS, 1)],
)
def test_a_tenth_is_kept_for_peers_where_there_are_any(associations, peers, expected):
    assert expected == limit_for_unknown_callers(associations, peers)


def test_unknown_callers_do_not_get_the_last_associations():
    with (
        Running(limits={"associations": 5}, peers=PEERS) as server,
        calling(server.port, "A", "B", "C", "D", "E", "KNOWN", "KNOWN") as answers,
    ):
        assert [True, True, True, True, False, True, False] == accepted(answers)
        assert {b"\0\2\3\2"} == {content for kind, content in answers if kind == 0x03}


def test_peers_may_have_all_associations():
    with (
        Running(limits={"associations": 5}, peers=PEERS) as server,
        calling(server.port, *["KNOWN"] * 5, "A", "KNOWN") as answers,
    ):
        assert [True] * 5 + [False] * 2 == accepted(answers)


def test_an_unknown_caller_takes_the_place_of_one_that_has_left():
    with Running(limits={"associations": 2}, peers=PEERS) as server:
        for _ in range(5):
            with calling(server.port, "A", "B") as answers:
                assert [True, False] == accepted(answers)
            until(lambda: not server.listener.active())


def test_without_peers_unknown_callers_may_have_all_associations():
    with (
        Running(limits={"associations": 3}) as server,
        calling(server.port, "A", "B", "C", "D") as answers,
    ):
        assert [True] * 3 + [False] == accepted(answers)


def test_silent_connections_do_not_shut_peers_out():
    """They fill the places of unknown callers and the queue behind; who speaks is heard, a peer is served."""
    with Running(limits={"associations": 10}, peers=PEERS) as server, contextlib.ExitStack() as held:
        for _ in range(120):
            held.enter_context(Parrot(server.port))
        with Parrot(server.port) as peer:
            kind, _ = peer.associate(calling="KNOWN")
            peer.send(store_message("1.2.3.4", b"data"))
            response = peer.read_response()
            released = peer.release()
        with Parrot(server.port) as unknown:
            refused = unknown.associate(calling="A")

    assert (0x02, b"\0\0", 0x06) == (kind, response[0x0900], released)
    assert (0x03, b"\0\2\3\2") == refused
    assert ["1.2.3.4"] == [one.sop_instance_uid for one in server.store.received if one.finished]


@pytest.mark.parametrize("size", [1, 7, 70])
def test_a_peer_beyond_the_limit_is_served_from_its_first_byte(size):
    """Its request comes in pieces, what follows it with the last of them."""
    sent = associate_rq([(1, CT, (EXPLICIT,)), (3, ECHO, (EXPLICIT,))], calling="KNOWN")
    sent += store_message("1.2.3.4", bytes(100_000))
    with (
        Running(limits={"associations": 2}, peers=PEERS) as server,
        Parrot(server.port) as unknown,
        Parrot(server.port) as peer,
    ):
        unknown.associate(calling="A")
        for at in range(0, 210, size):
            peer.send(sent[at : at + size])
        peer.send(sent[at + size :])
        kind, _ = peer.read_pdu()
        response = peer.read_response()

    assert (0x02, b"\0\0") == (kind, response[0x0900])


def test_a_peer_at_another_address_is_an_unknown_caller():
    peers = [Peer(aet="KNOWN", host="192.0.2.1"), Peer(aet="NAMED", host="no.such.host.invalid")]
    with (
        Running(limits={"associations": 3}, peers=peers) as server,
        calling(server.port, "A", "B", "KNOWN", "NAMED") as answers,
    ):
        assert [True, True, False, False] == accepted(answers)


@pytest.mark.parametrize(
    ("peer", "may_be"),
    [
        (Peer(aet="KNOWN"), True),
        (Peer(aet="OTHER"), False),
        (Peer(aet="KNOWN", host="10.0.0.1"), True),
        (Peer(aet="KNOWN", host="10.0.0.2"), False),
        (Peer(aet="KNOWN", host="10.0.0.2", networks=["10.0.0.0/24"]), True),
        (Peer(aet="KNOWN", networks=["10.0.0.0/24"]), True),
        (Peer(aet="KNOWN", networks=["10.0.1.0/24"]), False),
        (Peer(aet="KNOWN", host="a.name"), True),
    ],
)
def test_whether_a_caller_may_be_a_peer_needs_no_look_up(peer, may_be, monkeypatch):
    from support.peer import settings

    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("looked up"))

    assert may_be == Admission(settings(), [peer], {}).may_be_peer("KNOWN", "::ffff:10.0.0.1")


def test_a_reload_keeps_places_too():
    with Running(limits={"associations": 2}) as server:
        server.listener.reload(PEERS, LimitsSettings(associations=3))
        with calling(server.port, "A", "B", "C", "KNOWN") as answers:
            assert [True, True, False, True] == accepted(answers)


def test_a_limit_per_address_holds_for_peers():
    with (
        Running(limits={"associations": 9, "associations_per_address": 2}, peers=PEERS) as server,
        calling(server.port, "KNOWN", "KNOWN", "KNOWN") as answers,
    ):
        assert [True, True, False] == accepted(answers)


def test_a_refusal_names_the_caller():
    metrics = Metrics()
    with (
        structlog.testing.capture_logs() as events,
        Running(limits={"associations": 1}, metrics=metrics) as server,
        calling(server.port, "A", "B"),
    ):
        [event] = [event for event in events if event["event"] == "association_refused"]

    assert ("B", "IMAGINGSTUDYD", "2/3/2") == (event["calling_aet"], event["called_aet"], event["rejected"])
    assert b'refused_total{reason="local_limit"} 1.0' in metrics.text()


def test_beyond_the_limit_a_request_too_short_is_cut_off():
    with Running(limits={"associations": 1}) as server, Parrot(server.port) as held:
        held.associate()
        with Parrot(server.port) as peer:
            peer.send(pdu(1, item(0x50, b"")))

            assert (None, b"") == peer.read_pdu()


def test_when_threads_run_out_callers_are_rejected_without_one(monkeypatch):
    """CPython keeps some memory for each thread that could not start, so it is not tried for every caller."""
    tried = []

    def start(_association):
        tried.append(1)
        raise RuntimeError("can't start new thread")

    with Running() as server:
        with monkeypatch.context() as patch:
            patch.setattr("scp.daemon.listener.RESOURCE_PAUSE", 3600.0)
            patch.setattr("scp.upperlayer.association.ServedAssociation.start", start)
            with Parrot(server.port) as first:
                assert (None, b"") == first.read_pdu()
            with calling(server.port, "A", "B", "C") as answers:
                assert {(0x03, b"\0\2\3\2")} == set(answers)
        server.listener._full_until = 0.0
        with calling(server.port, "A") as answers:
            assert [True] == accepted(answers)

    assert [1] == tried


def test_silent_tls_clients_do_not_shut_peers_out(tmp_path, monkeypatch):
    """Who calls is known after the handshake only, and that takes a place: the longest silent makes room."""
    monkeypatch.setattr("scp.daemon.listener.REQUEST_PATIENCE", 0.0)
    site = Authority(tmp_path)
    site.issue("localhost")
    tls = TlsSettings(certificate=tmp_path / "localhost.pem", key=tmp_path / "localhost.key", port=0)
    trusting = ssl.create_default_context(cafile=site.certificate)
    with (
        Running(limits={"associations": 4}, peers=PEERS, tls=tls) as server,
        contextlib.ExitStack() as held,
    ):
        _, port = server.listener.tls_address()
        silent = [held.enter_context(Parrot(port)) for _ in range(8)]
        answers = []
        for title in ("A", "B", "C", "D", "KNOWN"):
            peer = held.enter_context(Parrot(port))
            peer.socket = trusting.wrap_socket(peer.socket, server_hostname="localhost")
            answers.append(peer.associate(calling=title))
        ends = [one.read_pdu() for one in silent]

    assert [True, True, True, False, True] == accepted(answers)
    assert [(None, b"")] * 8 == ends
