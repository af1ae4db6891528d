"""Every request has an answer or ends the association, and either is logged (PS3.7 Annex C)."""

import pytest
import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt

from support.peer import (
    CT,
    ECHO,
    EXPLICIT,
    IMPLICIT,
    Parrot,
    Running,
    command,
    echo_rq,
    element,
    p_data,
    pdv,
    store_message,
    ui,
    until,
    us,
)

MR = "1.2.840.10008.5.1.4.1.1.4"
WORKLIST = "1.2.840.10008.5.1.4.31"
MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
SERVICES = {WORKLIST: "worklist", MPPS: "mpps", COMMITMENT: "commitment"}
CONTEXTS = [
    (1, CT, (EXPLICIT,)),
    (3, ECHO, (EXPLICIT,)),
    (5, WORKLIST, (IMPLICIT,)),
    (7, MPPS, (IMPLICIT,)),
    (9, COMMITMENT, (IMPLICIT,)),
]

# PS3.7 Table E.1-1.
C_STORE, C_FIND, C_ECHO = 0x0001, 0x0020, 0x0030
N_EVENT_REPORT, N_GET, N_SET, N_ACTION, N_CREATE, N_DELETE = 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150
REQUESTS = (1, 0x10, 0x20, 0x21, 0x30, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150)
AFFECTED, REQUESTED = 0x0002, 0x0003
OPERATIONS = {1: (C_STORE,), 3: (C_ECHO,), 5: (C_FIND,), 7: (N_CREATE, N_SET), 9: (N_ACTION,)}
SOP_CLASSES = {context: sop_class for context, sop_class, _ in CONTEXTS}


def names_requested(field):
    return field in (N_GET, N_SET, N_ACTION, N_DELETE)


def request(field, sop_class, *more, data_set=False, requested=None):
    requested = names_requested(field) if requested is None else requested
    named = [ui(REQUESTED if requested else AFFECTED, sop_class)] if sop_class is not None else []
    return command(*named, us(0x0100, field), us(0x0110, 5), us(0x0800, 1 if data_set else 0x0101), *more)


def find(_event):
    match = Dataset()
    match.PatientName = "A^B"
    yield 0xFF00, match


def done(_event):
    return 0x0000, None


@pytest.fixture(scope="module")
def server():
    handlers = [
        (evt.EVT_C_FIND, find),
        (evt.EVT_N_ACTION, done),
        (evt.EVT_N_CREATE, done),
        (evt.EVT_N_SET, done),
    ]
    with Running(services=SERVICES, unknown_callers="all", handlers=handlers) as running:
        yield running


@pytest.fixture
def peer(server):
    with Parrot(server.port) as parrot:
        parrot.associate(CONTEXTS)
        yield parrot


def status_of(peer, context, *parts):
    """Return the status of the answer, and see that the association goes on."""
    peer.send(p_data(*(pdv(context, control, part) for control, part in zip((3, 2), parts, strict=False))))
    answer = peer.read_response()
    while b"\0\xff" == answer[0x0900]:  # pending: a data set, and the next
        peer.read_pdu()
        answer = peer.read_response()
    peer.send(p_data(pdv(3, 3, echo_rq())))
    assert b"\0\0" == peer.read_response()[0x0900]
    assert 5 == answer[0x0120][0]
    return int.from_bytes(answer[0x0900], "little")


@pytest.mark.parametrize(
    ("context", "field"),
    [(context, field) for context in OPERATIONS for field in REQUESTS if field not in OPERATIONS[context]],
)
def test_an_operation_without_the_service_is_unrecognized(peer, context, field):
    """PS3.7 Section C.5.18: 0211, "unrecognized operation"."""
    assert 0x0211 == status_of(peer, context, request(field, SOP_CLASSES[context], ui(0x1001, "1.2.3")))


@pytest.mark.parametrize("sop_class", [None, "", MR, "1.2.3", "nonsense", "1." * 40])
@pytest.mark.parametrize(
    ("context", "field"), [(context, field) for context, fields in OPERATIONS.items() for field in fields]
)
def test_a_missing_or_wrong_sop_class_is_answered(peer, context, field, sop_class):
    """PS3.7 Sections C.5.12 and 9.1.1.1.9: 0118, "no such SOP Class"; 0122, "SOP Class not supported"."""
    more = ui(0x1000, "1.2.3"), ui(0x1001, "1.2.3"), us(0x1008, 1), us(0x0700, 0)
    with structlog.testing.capture_logs() as events:
        status = status_of(peer, context, request(field, sop_class, *more))

    [event] = [event for event in events if event["event"] == "operation_refused"]
    assert (0x0118 if field >= N_EVENT_REPORT else 0x0122) == status
    assert (f"{field:04X}", "warning", "SCU") == (
        event["command"],
        event["log_level"],
        event["calling_aet"],
    )


@pytest.mark.parametrize("field", [N_SET, N_ACTION])
def test_a_sop_class_in_the_place_of_the_other_is_answered(peer, field):
    """The Affected SOP Class UID in N-ACTION (PS3.7 Table 10.3-9 has the Requested): there was no answer."""
    context = 9 if field == N_ACTION else 7
    encoded = request(field, SOP_CLASSES[context], ui(0x1001, "1.2.3"), us(0x1008, 1), requested=False)

    assert 0x0118 == status_of(peer, context, encoded)


def test_another_sop_class_beside_the_right_one_does_not_count(peer):
    encoded = request(N_ACTION, COMMITMENT, ui(AFFECTED, MR), ui(0x1001, "1.2.3"), us(0x1008, 1))

    assert 0x0000 == status_of(peer, 9, encoded)


@pytest.mark.parametrize(
    ("context", "encoded", "status"),
    [
        (9, request(N_ACTION, COMMITMENT, us(0x1008, 1)), 0x0117),
        (9, request(N_ACTION, COMMITMENT, ui(0x1000, "1.2"), us(0x1008, 1)), 0x0117),
        (9, request(N_ACTION, COMMITMENT, ui(0x1001, "1.2")), 0x0123),
        (7, request(N_SET, MPPS), 0x0117),
        (7, request(N_SET, MPPS, ui(0x1001, "1.2")), 0x0120),
        (5, request(C_FIND, WORKLIST, us(0x0700, 0)), 0xA900),
    ],
)
def test_a_request_without_what_it_needs_is_answered(peer, context, encoded, status):
    """PS3.7 Annex C, PS3.4 Table K.4-1. pynetdicom drops such requests, and the caller waited for ever."""
    with structlog.testing.capture_logs() as events:
        assert status == status_of(peer, context, encoded)

    assert 1 == len([event for event in events if event["event"] == "operation_refused"])


def test_a_priority_is_not_missed(peer):
    assert 0x0000 == status_of(peer, 5, request(C_FIND, WORKLIST, data_set=True), element(0, b"")[:0])


@pytest.mark.parametrize("padding", [b" ", b"  ", b"\0", b""])
def test_padding_of_uids_comes_back_as_it_was(peer, padding):
    """DCMTK (dimcmd.cc): peers that pad UIDs with blanks "fail if they receive correct UIDs back"."""
    sop_class, instance = CT.encode() + padding, b"1.2.3.44" + padding * 2
    encoded = command(
        element(AFFECTED, sop_class), us(0x0100, 1), us(0x0110, 5), us(0x0800, 1), element(0x1000, instance)
    )
    peer.send(p_data(pdv(1, 3, encoded), pdv(1, 2, b"data")))
    answer = peer.read_response()

    assert b"\0\0" == answer[0x0900]
    assert sop_class + b"\0" * (len(sop_class) % 2) == answer[AFFECTED]
    assert instance == answer[0x1000]


def test_blanks_before_a_uid_are_padding_too(server, peer):
    encoded = command(
        ui(AFFECTED, f" {CT}"), us(0x0100, 1), us(0x0110, 5), us(0x0800, 1), ui(0x1000, " 1.2.3.4")
    )
    server.store.received.clear()
    peer.send(p_data(pdv(1, 3, encoded), pdv(1, 2, b"data")))

    assert b"\0\0" == peer.read_response()[0x0900]
    assert [(CT, "1.2.3.4")] == [(one.sop_class_uid, one.sop_instance_uid) for one in server.store.received]


@pytest.mark.parametrize(
    ("context", "field"),
    [(1, 0x8001), (3, 0x8030), (5, 0x8020), (7, 0x8140), (9, 0x8100), (9, 0x8130), (1, 0xFFFF)],
)
def test_an_unexpected_response_aborts(server, context, field):
    """It was dropped without a word. PS3.8 Section 9.3.8: invalid-PDU-parameter-value."""
    with structlog.testing.capture_logs() as events, Parrot(server.port) as peer:
        peer.associate(CONTEXTS, calling="ODD")
        encoded = command(
            ui(AFFECTED, SOP_CLASSES[context]),
            us(0x0100, field),
            us(0x0120, 5),
            us(0x0800, 0x0101),
            us(0x0900, 0),
        )
        peer.send(p_data(pdv(context, 3, encoded)))
        kind, content = peer.read_pdu()
        ended = ("association", "ODD")
        until(lambda: ended in [(event["event"], event.get("calling_aet")) for event in events])

    [event] = [event for event in events if ended == (event["event"], event.get("calling_aet"))]
    assert (0x07, 2, 6) == (kind, content[2], content[3])
    assert ("aborted", f"an unexpected response {field:04X}") == (event["outcome"], event["reason"])


def test_a_cancel_for_a_service_without_is_ignored(peer):
    peer.send(p_data(pdv(7, 3, command(us(0x0100, 0x0FFF), us(0x0120, 1), us(0x0800, 0x0101)))))
    peer.send(store_message())

    assert b"\0\0" == peer.read_response()[0x0900]
