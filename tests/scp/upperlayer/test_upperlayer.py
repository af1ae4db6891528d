"""The upper layer by the byte: order, bounds, deadlines, and what it relies on of pynetdicom."""

import inspect
import subprocess
import threading
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association, ServiceUser
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.transport import AssociationSocket

import scp.upperlayer.dul
from scp.upperlayer.message_assembler import COMMAND_LENGTH
from support.peer import (
    ABORT,
    CT,
    ECHO,
    EXPLICIT,
    IMPLICIT,
    RELEASE_RQ,
    Parrot,
    Running,
    associate_rq,
    command,
    descriptors_open,
    echo_rq,
    element,
    elements,
    p_data,
    pdu,
    pdv,
    store_message,
    store_rq,
    ui,
    until,
    us,
)

WORKLIST = "1.2.840.10008.5.1.4.31"
COMMITMENT = "1.2.840.10008.1.20.1"
BOTH = [(1, CT, (EXPLICIT,)), (3, ECHO, (EXPLICIT,))]

# --- what we rely on ---

PRIVATE_NAMES = {
    (Association, "_abort_blocking"): "(self, block: bool = True) -> None",
    (Association, "_run_reactor"): "(self) -> None",
    (Association, "_serve_request"): None,
    (ACSE, "_check_async_ops"): None,
    (DULServiceProvider, "_decode_pdu"): None,
    (DULServiceProvider, "_process_recv_primitive"): "(self) -> bool",
    (DULServiceProvider, "_send"): None,
    (DULServiceProvider, "start"): "(self)",
    (DULServiceProvider, "stop_dul"): "(self) -> bool",
    (DULServiceProvider, "kill_dul"): "(self) -> None",
    (DULServiceProvider, "send_pdu"): None,
    (DULServiceProvider, "receive_pdu"): None,
    (DULServiceProvider, "peek_next_pdu"): None,
    (AssociationSocket, "_shutdown_socket"): "(self) -> None",
    (AssociationSocket, "close"): "(self) -> None",
    (AssociationSocket, "send"): "(self, bytestream: bytes) -> None",
    (DIMSEServiceProvider, "get_msg"): None,
    (DIMSEServiceProvider, "send_msg"): None,
    (ACSE, "is_release_requested"): "(self) -> bool",
    (ACSE, "is_aborted"): None,
    (StateMachine, "do_action"): "(self, event: str) -> None",
}

PRIVATE_ATTRIBUTES = {
    Association: {"_accepted_cx", "_dul_ready", "_is_paused", "_kill", "_server"},
    DULServiceProvider: {"_kill_thread", "_recv_pdu", "event_queue", "to_user_queue", "to_provider_queue"},
    DIMSEServiceProvider: {"msg_queue", "cancel_req"},
}


def test_pynetdicom_is_the_version_that_this_was_written_for():
    assert "3.0.4" == version("pynetdicom")


@pytest.mark.parametrize(("owner", "name"), PRIVATE_NAMES)
def test_a_private_name_is_as_expected(owner, name):
    expected = PRIVATE_NAMES[owner, name]
    signature = str(inspect.signature(getattr(owner, name)))

    assert expected is None or expected.replace("'", "") == signature.replace("'", "")


def test_private_attributes_exist():
    association = Association(AE(), "acceptor")
    owners = {
        Association: association,
        DULServiceProvider: association.dul,
        DIMSEServiceProvider: association.dimse,
    }

    missing = {
        (owner.__name__, name)
        for owner, names in PRIVATE_ATTRIBUTES.items()
        for name in names
        if not hasattr(owners[owner], name)
    }

    assert set() == missing
    assert isinstance(association.acceptor, ServiceUser)


def test_the_state_table_is_the_standards():
    expected = {("Evt10", "Sta6"): "DT-2", ("Evt18", "Sta2"): "AA-2", ("Evt19", "Sta6"): "AA-8"}

    assert expected == {key: TRANSITION_TABLE[key] for key in expected}


def test_no_other_module_touches_private_names():
    own = set(PRIVATE_ATTRIBUTES[Association]) | {"_recv_pdu", "_kill_thread", "_decode_pdu", "_send("}
    folder = Path(scp.__file__).parent

    touching = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*.py")
        if "pynetdicom" in (text := path.read_text()) and any(f".{one}" in text for one in own)
    }

    assert {"upperlayer"} == touching


# --- help ---


@pytest.fixture
def serve():
    running = []

    def start(**changes):
        running.append(Running(**changes))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def peer(serve):
    server = serve(timeouts={"pdu": 5})
    with Parrot(server.port) as parrot:
        parrot.server = server
        yield parrot


def abort_reason(parrot):
    """Return (source, reason) of the A-ABORT that comes next."""
    kind, content = parrot.read_pdu()
    assert 0x07 == kind, (kind, content)
    assert (None, b"") == parrot.read_pdu()
    return content[2], content[3]


def is_alive(port):
    with Parrot(port) as parrot:
        parrot.associate([(1, ECHO, (EXPLICIT,))])
        parrot.send(p_data(pdv(1, 3, echo_rq())))
        return b"\0\0" == parrot.read_response()[0x0900]


# --- fragments ---


@pytest.mark.parametrize("size", [1, 7, 100])
def test_tiny_fragments(peer, size):
    peer.associate()
    encoded, data = store_rq("1.2.3"), bytes(range(250))
    for control, content in ((1, encoded), (0, data)):
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        for number, piece in enumerate(pieces, start=1):
            peer.send(p_data(pdv(1, control | (2 if number == len(pieces) else 0), piece)))

    assert b"\0\0" == peer.read_response()[0x0900]
    assert data == peer.server.store.received[0].data


def test_several_values_and_messages_in_one_pdu(peer):
    peer.associate()
    one = pdv(1, 1, store_rq()[:20]) + pdv(1, 3, store_rq()[20:]) + pdv(1, 0, b"ab") + pdv(1, 2, b"cd")

    peer.send(p_data(one, one))

    assert [b"\0\0"] * 2 == [peer.read_response()[0x0900] for _ in range(2)]
    assert [b"abcd"] * 2 == [one.data for one in peer.server.store.received]


def test_one_byte_at_a_time(peer):
    for number in associate_rq() + store_message(data=b"12345678"):
        peer.send(bytes([number]))
    peer.read_pdu()

    assert b"\0\0" == peer.read_response()[0x0900]


def test_empty_fragments_are_fragments(peer):
    peer.associate()
    peer.send(p_data(pdv(1, 1, b""), pdv(1, 3, store_rq()), pdv(1, 0, b""), pdv(1, 2, b"")))

    assert b"\0\0" == peer.read_response()[0x0900]
    assert b"" == peer.server.store.received[0].data


def test_a_large_pdu_does_not_wait_in_memory(serve):
    server = serve(max_pdu=8 * 1024 * 1024)
    data = bytes(8 * 1024 * 1024 - 6)
    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(1, 3, store_rq())) + p_data(pdv(1, 2, data)))

        assert b"\0\0" == peer.read_response()[0x0900]
    [received] = server.store.received
    assert len(data) == len(received.data)
    assert received.fragments > 8


def test_answers_honour_a_tiny_maximum(peer):
    peer.associate(max_pdu=30)
    peer.send(store_message())
    encoded = b""
    last = 0
    while not last:
        kind, content = peer.read_pdu()
        assert (0x04, True) == (kind, len(content) <= 30)
        encoded += content[6:]
        last = content[5] & 2

    assert b"\0\0" == elements(encoded)[0x0900]


# --- faults ---

UNRECOGNIZED, UNEXPECTED, INVALID = (2, 1), (2, 2), (2, 6)
BEFORE = {
    "a data set before its command": (p_data(pdv(1, 2, b"data")), INVALID),
    "a command within a data set": (p_data(pdv(1, 3, store_rq()), pdv(1, 3, store_rq())), INVALID),
    "another context within a message": (p_data(pdv(1, 3, store_rq()), pdv(3, 2, b"")), INVALID),
    "a context that was not proposed": (p_data(pdv(9, 3, echo_rq())), INVALID),
    "context zero": (p_data(pdv(0, 3, echo_rq())), INVALID),
    "a value longer than its pdu": (pdu(4, b"\0\0\0\xff\x01\x03abc"), INVALID),
    "a value of 4 GB": (pdu(4, b"\xff\xff\xff\xff\x01\x03abc"), INVALID),
    "a value without control header": (pdu(4, b"\0\0\0\x01\x01\x03abc"), INVALID),
    "a value that is cut off": (pdu(4, b"\0\0\0"), INVALID),
    "no value": (pdu(4, b""), INVALID),
    "a pdu longer than offered": (b"\x04\0\0\x10\0\x01", INVALID),
    "a pdu of 4 GB": (b"\x04\0\xff\xff\xff\xff", INVALID),
    "a long release": (b"\x05\0\0\0\0\x05", INVALID),
    "a short release": (pdu(5, b""), INVALID),
    "an unknown type": (pdu(9, b"abcd"), UNRECOGNIZED),
    "http": (b"GET / HTTP/1.0\r\n\r\n", UNRECOGNIZED),
    "a second request": (associate_rq(), UNEXPECTED),
    "an answer to no request": (pdu(3, b"\0\1\1\1"), UNEXPECTED),
    "a release that was not asked for": (pdu(6, bytes(4)), UNEXPECTED),
    "a command set that is none": (p_data(pdv(1, 3, b"nonsense")), INVALID),
    "an element longer than the command set": (p_data(pdv(1, 3, b"\0\0\0\x01\xff\xff\xff\xff")), INVALID),
    "a command set without a field": (p_data(pdv(1, 3, command(us(0x0110, 1), us(0x0800, 257)))), INVALID),
    "a command set without data set type": (
        p_data(pdv(1, 3, command(us(0x0100, 1), us(0x0110, 1)))),
        INVALID,
    ),
    "a command set without message id": (p_data(pdv(1, 3, command(us(0x0100, 1), us(0x0800, 257)))), INVALID),
    "a response to nothing": (
        p_data(pdv(3, 3, command(us(0x0100, 0x8020), us(0x0120, 1), us(0x0800, 257)))),
        INVALID,
    ),
    "an endless command set": (
        b"".join(p_data(pdv(1, 1, bytes(16000))) for _ in range(COMMAND_LENGTH // 16000 + 1)),
        INVALID,
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_fault_aborts_with_its_reason(peer, name):
    data, expected = BEFORE[name]
    peer.associate(BOTH)

    peer.send(data)

    assert expected == abort_reason(peer)
    assert is_alive(peer.server.port)
    assert not [one for one in peer.server.store.received if one.finished]


@pytest.mark.parametrize(
    "data",
    [
        p_data(pdv(1, 3, echo_rq())),
        RELEASE_RQ,
        b"\x01\0\0\x02\0\0",
        b"GET / HTTP/1.0\r\n\r\n",
        pdu(1, b"short"),
        associate_rq()[:-4],
        pdu(1, associate_rq()[6:74] + b"\x50\0\xff\xff"),
    ],
    ids=range(7),
)
def test_no_proper_request(peer, data):
    peer.send(data)
    peer.socket.shutdown(1)

    assert peer.read_pdu()[0] in (0x07, None)
    assert is_alive(peer.server.port)
    assert [] == [link for link in peer.server.ended if link.calling_aet != "SCU"]


def test_what_is_no_dicom_is_logged_with_its_address(serve):
    with structlog.testing.capture_logs() as events:
        server = serve()
        with Parrot(server.port) as peer:
            peer.send(b"GET / HTTP/1.0\r\n\r\n")
            peer.read_pdu()
        until(lambda: not server.listener.active())

    [event] = [event for event in events if event["event"] == "connection_without_request"]
    assert ("warning", "a PDU of type 47", "127.0.0.1") == (
        event["log_level"],
        event["reason"],
        event["address"],
    )


def test_another_protocol_version_is_rejected(peer):
    peer.send(associate_rq().replace(b"\0\x01\0\0IMAG", b"\0\x02\0\0IMAG"))

    assert (0x03, b"\0\x01\x02\x02") == peer.read_pdu()


def test_an_abort_discards_the_object(peer):
    peer.associate()
    peer.send(p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half")) + ABORT)
    until(lambda: peer.server.store.received and peer.server.store.received[0].discarded)

    assert "by the peer" == peer.server.store.received[0].discarded


def test_an_answer_after_our_abort_is_dropped(peer):
    """P-DATA is for Sta6 and Sta8 (PS3.8 Section 9.2, Table 9-10)."""
    peer.associate()
    [association] = peer.server.listener._snapshot()
    peer.server.store.before_answer = lambda _received: association.abort()
    peer.send(store_message())

    assert (0, 0) == abort_reason(peer)
    until(lambda: peer.server.ended)


def fail(_):
    raise MemoryError("no memory")


def test_a_failure_of_our_own_aborts(peer):
    """A peer that only sees the connection close takes it for a fault of the network."""
    peer.associate()
    peer.server.store.before_answer = fail
    with structlog.testing.capture_logs() as events:
        peer.send(store_message())

        assert (2, 0) == abort_reason(peer)
        until(lambda: peer.server.ended)
    assert ["MemoryError: no memory"] == [one["reason"] for one in events if one["event"] == "association"]


def test_posted_work_that_fails_ends_no_association(peer):
    peer.associate(BOTH)
    [association] = peer.server.listener._snapshot()
    with structlog.testing.capture_logs() as events:
        association.post(fail)
        until(lambda: any(event["event"] == "posted_work_failed" for event in events))
        peer.send(p_data(pdv(3, 3, echo_rq())))

        assert b"\0\0" == peer.read_response()[0x0900]
    assert 0x06 == peer.release()


@pytest.mark.parametrize("step", ["_stores.flush", "_discard_incomplete", "_report_end", "acse.end"])
def test_an_association_ends_though_a_step_of_its_end_fails(peer, step, monkeypatch):
    peer.associate()
    [association] = peer.server.listener._snapshot()
    peer.send(p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half")))
    until(lambda: peer.server.store.received)
    owner, _, name = step.rpartition(".")
    monkeypatch.setattr(getattr(association, owner) if owner else association, name, lambda: 1 / 0)
    peer.close()
    until(lambda: not peer.server.listener.active())

    [received] = peer.server.store.received
    assert bool(received.discarded) == (step != "_discard_incomplete")
    assert bool(peer.server.ended) == (step != "_report_end")
    assert -1 == association.connection._wake


def test_a_release_in_the_middle_discards_the_object(peer):
    peer.associate()
    peer.send(p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half")))

    assert 0x06 == peer.release()
    until(lambda: peer.server.store.received[0].discarded)


def test_a_lost_connection_discards_the_object(serve):
    server = serve()
    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half"))[:-2])
    until(lambda: server.store.received and server.store.received[0].discarded)

    assert "connection lost: closed by the peer" == server.store.received[0].discarded


# --- answers ---


def operation(field, sop_class, *more, data_set=0x0101):
    return command(ui(2, sop_class), us(0x0100, field), us(0x0110, 5), us(0x0800, data_set), *more)


@pytest.mark.parametrize(
    ("context", "encoded", "status"),
    [
        (3, operation(0x0050, ECHO), 0x0211),
        (3, operation(0x0020, ECHO), 0x0211),
        (3, operation(0x0030, CT), 0x0122),
        (3, operation(0x0001, ECHO), 0x0211),
        (1, operation(0x0030, CT), 0x0211),
        (1, operation(0x0001, CT), 0xC000),
        (1, operation(0x0001, ECHO), 0x0122),
        (5, operation(0x0130, CT), 0x0118),
        (5, operation(0x0001, COMMITMENT), 0x0211),
    ],
)
def test_an_operation_that_is_not_served_is_answered(serve, context, encoded, status):
    server = serve(services={COMMITMENT: "commitment"}, unknown_callers="all")
    with Parrot(server.port) as peer:
        peer.associate([*BOTH, (5, COMMITMENT, (IMPLICIT,))])
        peer.send(p_data(pdv(context, 3, encoded)))
        refused = peer.read_response()
        peer.send(p_data(pdv(3, 3, echo_rq())))
        echoed = peer.read_response()

    assert (status, 5) == (int.from_bytes(refused[0x0900], "little"), refused[0x0120][0])
    assert b"\0\0" == echoed[0x0900]


def test_the_data_set_of_a_refused_operation_is_skipped(peer):
    peer.associate(BOTH)
    peer.send(p_data(pdv(3, 3, operation(0x0050, ECHO, data_set=1)), pdv(3, 0, b"x" * 99), pdv(3, 2, b"")))

    assert b"\x11\x02" == peer.read_response()[0x0900]


def test_a_cancel_for_nothing_is_ignored(peer):
    peer.associate(BOTH)
    peer.send(p_data(pdv(3, 3, command(us(0x0100, 0x0FFF), us(0x0120, 1), us(0x0800, 0x0101)))))
    peer.send(p_data(pdv(3, 3, echo_rq())))

    assert b"\0\0" == peer.read_response()[0x0900]


def test_a_uid_that_is_none_reaches_the_store(peer):
    peer.associate()
    peer.send(p_data(pdv(1, 3, store_rq("../../etc/passwd")), pdv(1, 2, b"data")))
    response = peer.read_response()

    assert b"\0\0" == response[0x0900]
    assert "../../etc/passwd" == peer.server.store.received[0].sop_instance_uid


def test_a_long_data_set_for_another_service_is_refused(serve, monkeypatch):
    monkeypatch.setattr("scp.upperlayer.dispatch.MESSAGE_LENGTH", 1000)
    server = serve(services={WORKLIST: "worklist"}, unknown_callers="all")
    with Parrot(server.port) as peer:
        peer.associate([(1, WORKLIST, (IMPLICIT,))])
        peer.send(p_data(pdv(1, 3, operation(0x0020, WORKLIST, data_set=1)), pdv(1, 2, bytes(1001))))

        assert b"\x13\x02" == peer.read_response()[0x0900]


# --- services of pynetdicom ---


def endless(event):
    match = Dataset()
    match.PatientName = "A^B"
    while not event.is_cancelled:
        yield 0xFF00, match
    yield 0xFE00, None


def test_a_find_is_cancelled(serve):
    server = serve(
        services={WORKLIST: "worklist"}, unknown_callers="all", handlers=[(evt.EVT_C_FIND, endless)]
    )
    query = operation(0x0020, WORKLIST, us(0x0700, 0), data_set=1)
    cancel = command(us(0x0100, 0x0FFF), us(0x0120, 5), us(0x0800, 0x0101))
    with Parrot(server.port) as peer:
        peer.associate([(1, WORKLIST, (IMPLICIT,))])
        peer.send(p_data(pdv(1, 3, query), pdv(1, 2, element(0, b"")[:0])))
        statuses = []
        while not statuses or statuses[-1] == 0xFF00:
            kind, content = peer.read_pdu()
            assert 0x04 == kind
            if content[5] & 1:
                statuses.append(int.from_bytes(elements(content[6:])[0x0900], "little"))
            if len(statuses) == 3:
                peer.send(p_data(pdv(1, 3, cancel)))

    assert 0xFE00 == statuses[-1]


def test_a_find_ends_with_its_caller(serve):
    server = serve(
        services={WORKLIST: "worklist"}, unknown_callers="all", handlers=[(evt.EVT_C_FIND, endless)]
    )
    with Parrot(server.port) as peer:
        peer.associate([(1, WORKLIST, (IMPLICIT,))])
        peer.send(p_data(pdv(1, 3, operation(0x0020, WORKLIST, us(0x0700, 0), data_set=1)), pdv(1, 2, b"")))
        peer.read_pdu()
    until(lambda: not server.listener.active())


def test_a_report_goes_out_on_the_same_association(serve):
    """An N-EVENT-REPORT while the association is idle; a request that comes before its response waits."""
    statuses, associations = [], []

    def act(event):
        associations.append(event.assoc)
        return 0x0000, None

    def report(association):
        information = Dataset()
        information.TransactionUID = "1.2"
        status, _ = association.send_n_event_report(information, 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
        statuses.append(status.Status)

    server = serve(
        services={COMMITMENT: "commitment"}, unknown_callers="all", handlers=[(evt.EVT_N_ACTION, act)]
    )
    action = command(
        ui(3, COMMITMENT),
        us(0x0100, 0x0130),
        us(0x0110, 1),
        us(0x0800, 0x0101),
        ui(0x1001, "1.2.3"),
        us(0x1008, 1),
    )
    with Parrot(server.port) as peer:
        peer.associate([(1, COMMITMENT, (IMPLICIT,)), (3, ECHO, (IMPLICIT,))])
        peer.send(p_data(pdv(1, 3, action)))
        acted = peer.read_response()
        associations[0].post(report)
        request = peer.read_response()
        peer.read_pdu()
        peer.send(p_data(pdv(3, 3, echo_rq(9))))
        peer.send(
            p_data(
                pdv(
                    1,
                    3,
                    command(
                        ui(2, COMMITMENT), us(0x0100, 0x8100), us(0x0120, 1), us(0x0800, 257), us(0x0900, 0)
                    ),
                )
            )
        )
        echoed = peer.read_response()

    assert (b"\0\0", b"\0\x01", 9) == (acted[0x0900], request[0x0100], echoed[0x0120][0])
    assert [0x0000] == statuses


@pytest.mark.parametrize("in_one_pdu", [True, False])
def test_requests_before_a_response_to_us_are_bounded(serve, in_one_pdu):
    """They are held in memory; a peer may invoke 16 at most (PS3.7 Section D.3.3.3)."""
    server = serve(services={COMMITMENT: "commitment"}, unknown_callers="all")
    statuses = []

    def report(association):
        answer, _ = association.send_n_event_report(Dataset(), 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
        statuses.append((answer.get("Status"), association.dimse.msg_queue.qsize()))

    with Parrot(server.port) as peer:
        peer.associate([(1, COMMITMENT, (IMPLICIT,)), (3, ECHO, (IMPLICIT,))])
        [association] = server.listener._snapshot()
        association.post(report)
        assert 0x04 == peer.read_pdu()[0]
        echo = pdv(3, 3, echo_rq())
        peer.send(p_data(*[echo] * 17) if in_one_pdu else p_data(echo) * 17)
        assert (2, 6) == abort_reason(peer)
    until(lambda: server.ended)
    assert [(None, 16)] == statuses


# --- deadlines ---

# By default a request and a PDU have 30 s: what ends before has ended by the deadline of the test.
USUAL_SECONDS = 25


def test_a_request_that_does_not_come(serve):
    server = serve(timeouts={"request": 0.3})
    with Parrot(server.port) as silent, Parrot(server.port) as slow:
        started = time.monotonic()
        slow.send(associate_rq()[:20])

        assert (None, b"") == silent.read_pdu()
        assert (None, b"") == slow.read_pdu()
    assert 0.2 < time.monotonic() - started < USUAL_SECONDS


def test_a_pdu_that_does_not_end(serve):
    server = serve(timeouts={"pdu": 0.3})
    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(store_message()[:-3])
        started = time.monotonic()
        time.sleep(0.2)
        peer.send(b"x")  # a drop now and then does not help

        assert (2, 0) == abort_reason(peer)
    assert time.monotonic() - started < USUAL_SECONDS
    until(lambda: server.store.received[0].discarded)


def test_an_association_that_is_idle(serve):
    server = serve(timeouts={"idle": 0.3})
    with Parrot(server.port) as peer:
        peer.associate()

        assert (0, 0) == abort_reason(peer)
    until(lambda: server.ended)


def test_a_peer_that_does_not_take_its_answers(serve, monkeypatch):
    monkeypatch.setattr("scp.upperlayer.association.CLOSE_SECONDS", 0.2)
    server = serve(timeouts={"pdu": 0.3})
    with Parrot(server.port, timeout=3) as peer:
        peer.associate(BOTH)
        ahead = p_data(pdv(3, 3, operation(0x0050, ECHO))) * 500_000
        with pytest.raises(OSError, match=r"reset|pipe|timed out"):
            peer.send(ahead)
    until(lambda: not server.listener.active())


# --- many ---


def echo_seconds(port):
    started = time.monotonic()
    subprocess.run(["echoscu", "127.0.0.1", str(port)], check=True, timeout=20)
    return time.monotonic() - started


def test_many_half_open_and_idle_associations(serve):
    server = serve(timeouts={"request": 6}, limits={"associations": 800})
    assert is_alive(server.port)
    until(lambda: not server.listener.active())
    threads, descriptors = threading.active_count(), descriptors_open()
    idle = [Parrot(server.port) for _ in range(500)]
    for peer in idle:
        assert 0x02 == peer.associate()[0]
    half_open = [Parrot(server.port) for _ in range(200)]
    for peer in half_open:
        peer.send(associate_rq()[:30])
    until(lambda: 700 == server.listener.active(), 6)

    # The machine may be busy with other things: the best of three counts.
    assert min(echo_seconds(server.port) for _ in range(3)) < 1
    until(lambda: 500 >= server.listener.active(), 20)
    for peer in idle + half_open:
        peer.close()
    until(lambda: not server.listener.active(), 20)
    until(lambda: threads >= threading.active_count() and descriptors >= descriptors_open())


# --- TLS ---
