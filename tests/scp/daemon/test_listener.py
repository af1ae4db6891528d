"""The listener with foreign clients and raw peers."""

import socket
import subprocess
import threading
import time

import pytest
import structlog
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from scp.association.events import record_of
from scp.settings.sections import LimitsSettings, Peer
from support.peer import (
    APPLICATION_CONTEXT,
    CT,
    ECHO,
    EXPLICIT,
    IMPLICIT,
    Answer,
    Parrot,
    Running,
    accepted,
    associate_rq,
    command,
    descriptors_open,
    echo_rq,
    item,
    p_data,
    pdv,
    store_message,
    store_rq,
    ui,
    until,
    us,
)

WORKLIST = "1.2.840.10008.5.1.4.31"
JPEG = "1.2.840.10008.1.2.4.50"
LOSSLESS = "1.2.840.10008.1.2.4.70"


@pytest.fixture
def serve():
    running = []

    def start(**changes):
        running.append(Running(**changes))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert 0 == done.returncode, done.stdout + done.stderr


# --- foreign clients ---


def test_echoscu(serve):
    run("echoscu", "127.0.0.1", str(serve().port))


@pytest.mark.parametrize("pdu", ["4096", "131072"])
def test_storescu(serve, pdu):
    server = serve()
    path = get_testdata_file("CT_small.dcm")

    run("storescu", "--max-send-pdu", pdu, "127.0.0.1", str(server.port), path)

    [received] = server.store.received
    assert CT == received.sop_class_uid
    assert received.finished
    assert dcmread(path).PixelData in received.data


def test_dcmsend_of_several_files(serve):
    server = serve()
    names = ("CT_small.dcm", "MR_small.dcm", "JPEG-lossy.dcm", "rtplan.dcm", "MR_small_bigendian.dcm")

    run("dcmsend", "127.0.0.1", str(server.port), *(get_testdata_file(name) for name in names))

    syntaxes = sorted(one.transfer_syntax for one in server.store.received)
    assert 5 == len(syntaxes)
    until(lambda: server.ended)
    assert "DCMSEND" == server.ended[0].calling_aet


def test_pynetdicom_as_client(serve):
    server = serve()
    ae = AE("CLIENT")
    ae.add_requested_context(CT, [JPEG, LOSSLESS, IMPLICIT])
    ae.add_requested_context(ECHO)
    association = ae.associate("127.0.0.1", server.port)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientName = CT, "1.2.3", "A^B"
    dataset.set_original_encoding(is_implicit_vr=True, is_little_endian=True)
    dataset.file_meta = Dataset()
    dataset.file_meta.TransferSyntaxUID = IMPLICIT

    stored = association.send_c_store(dataset)
    echoed = association.send_c_echo()
    association.release()

    assert (0x0000, 0x0000) == (stored.Status, echoed.Status)
    assert [IMPLICIT] == [one.transfer_syntax for one in server.store.received]
    assert association.is_released


# --- contexts ---


def test_every_context_has_its_own_answer(serve):
    server = serve(services={WORKLIST: "worklist"}, peers=[Peer(aet="KNOWN")])
    contexts = [
        (1, CT, (JPEG, LOSSLESS, IMPLICIT)),
        (3, CT, (JPEG,)),
        (5, "1.2.840.113619.4.27", ("1.2.840.113619.5.2", EXPLICIT)),
        (7, WORKLIST, (IMPLICIT,)),
        (9, "1.2.840.10008.1.20.2", (IMPLICIT,)),
        (11, ECHO, (IMPLICIT,)),
    ]
    with Parrot(server.port) as peer:
        _, stranger = peer.associate(contexts)
    with Parrot(server.port) as peer:
        _, known = peer.associate(contexts, calling="KNOWN")

    results = {number: result for number, (result, _) in accepted(stranger).items()}
    assert {1: 0, 3: 0, 5: 0, 7: 1, 9: 3, 11: 0} == results
    assert [IMPLICIT, JPEG, EXPLICIT] == [accepted(stranger)[number][1] for number in (1, 3, 5)]
    assert (0, IMPLICIT) == accepted(known)[7]


def test_a_service_takes_no_syntax_that_it_cannot_decode(serve):
    server = serve(services={WORKLIST: "worklist"}, unknown_callers="all")

    with Parrot(server.port) as peer:
        _, content = peer.associate([(1, WORKLIST, (JPEG,))])

    assert 4 == accepted(content)[1][0]


def test_storage_from_us_to_the_caller_is_rejected(serve):
    server = serve()
    ae = AE("CLIENT")
    ae.add_requested_context(CT, [IMPLICIT])
    ae.add_requested_context(ECHO, [IMPLICIT])

    association = ae.associate("127.0.0.1", server.port, ext_neg=[build_role(CT, scp_role=True)])

    assert [1] == [context.result for context in association.rejected_contexts]
    association.release()


def test_an_object_does_not_come_in_the_context_for_objects_from_us():
    get = "1.2.840.10008.5.1.4.1.2.2.3"
    with Running(services={get: "retrieve"}, unknown_callers="all") as server:
        role = item(0x54, len(CT).to_bytes(2, "big") + CT.encode() + b"\0\1")
        with Parrot(server.port) as peer:
            _, content = peer.associate(extra=role)
            peer.send(store_message())
            response = peer.read_response()

    assert (0, EXPLICIT) == accepted(content)[1]
    assert b"\x22\x01" == response[0x0900]
    assert [] == server.store.received


def test_a_private_sop_class_is_stored(serve):
    server = serve()
    with Parrot(server.port) as peer:
        peer.associate([(1, "1.2.3.4.5", (EXPLICIT,))])
        peer.send(p_data(pdv(1, 3, store_rq("1.2", sop_class="1.2.3.4.5")), pdv(1, 2, b"data")))

        assert b"\0\0" == peer.read_response()[0x0900]


def test_another_sop_class_than_the_contexts_is_refused(serve):
    server = serve()
    other = "1.2.840.10008.5.1.4.1.1.4"
    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(1, 3, store_rq("1.2", sop_class=other)), pdv(1, 2, b"data")))

        assert b"\x22\x01" == peer.read_response()[0x0900]
    assert [] == server.store.received


def test_a_service_is_not_reached_through_another_context(serve):
    called = []
    mpps = "1.2.840.10008.3.1.2.3.3"
    server = serve(services={mpps: "mpps"}, handlers=[(evt.EVT_N_CREATE, called.append)])
    create = command(
        ui(0x0002, mpps), us(0x0100, 0x0140), us(0x0110, 1), us(0x0800, 0x0101), ui(0x1000, "1.2")
    )

    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(1, 3, create)))
        peer.read_pdu()

    assert [] == called


# --- operations ---


def test_an_object_is_stored_byte_for_byte(serve):
    server = serve()
    data = bytes(range(256)) * 200

    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(store_message("1.2.3.4", data, message=77))
        response = peer.read_response()
        kind = peer.release()

    assert (b"\0\0", b"\x01\x80", b"\x4d\0") == (response[0x0900], response[0x0100], response[0x0120])
    assert (CT.encode() + b"\0", b"1.2.3.4\0") == (response[0x0002], response[0x1000])
    assert 0x06 == kind
    [received] = server.store.received
    assert (CT, "1.2.3.4", EXPLICIT, data) == (
        received.sop_class_uid,
        received.sop_instance_uid,
        received.transfer_syntax,
        bytes(received.data),
    )


def test_a_failure_has_its_status_and_comment(serve):
    server = serve()
    server.store.answer = Answer(0xA700, "no room")

    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(store_message())
        response = peer.read_response()

    assert (b"\0\xa7", b"no room ") == (response[0x0900], response[0x0902])


def test_requests_sent_ahead_are_answered_in_order(serve):
    server = serve()
    with Parrot(server.port) as peer:
        peer.associate([(1, CT, (EXPLICIT,)), (3, ECHO, (EXPLICIT,))])
        peer.send(b"".join(store_message(f"1.2.{number}", message=number) for number in range(1, 21)))
        answered = [peer.read_response()[0x0120][0] for _ in range(20)]

    assert list(range(1, 21)) == answered
    assert [f"1.2.{number}" for number in range(1, 21)] == [
        one.sop_instance_uid for one in server.store.received
    ]


def test_an_abort_in_the_middle_of_an_object_leaves_it_unfinished(serve):
    server = serve()
    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half")))
    until(lambda: not server.listener.active())

    assert not [one for one in server.store.received if one.finished]


def test_a_handler_has_titles_and_address_of_its_association(serve):
    links = []

    def find(event):
        links.append(record_of(event).info)
        yield 0x0000, None

    server = serve(services={WORKLIST: "worklist"}, unknown_callers="all", handlers=[(evt.EVT_C_FIND, find)])
    ae = AE("MODALITY")
    ae.add_requested_context(WORKLIST)
    association = ae.associate("127.0.0.1", server.port, ae_title="US")
    query = Dataset()
    query.PatientName = "*"
    statuses = [status.Status for status, _ in association.send_c_find(query, WORKLIST)]
    association.release()

    assert [0x0000] == statuses
    assert ("MODALITY", "US", "127.0.0.1") == (
        links[0].calling_aet,
        links[0].called_aet,
        links[0].address,
    )


# --- admission, limits ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"called_aets": ("PACS",)}, b"\0\x01\x01\x07"), ({"unknown_callers": "reject"}, b"\0\x01\x01\x03")],
)
def test_an_unknown_caller_is_rejected(serve, changes, reason):
    server = serve(**changes)

    with Parrot(server.port) as peer:
        kind, content = peer.associate()
        end, _ = peer.read_pdu()

    assert (0x03, reason, None) == (kind, content, end)


@pytest.mark.parametrize("limits", [{"associations": 2}, {"associations_per_address": 2}])
def test_beyond_the_limit_the_request_is_read_and_rejected(serve, limits):
    server = serve(limits=limits)
    held = [Parrot(server.port) for _ in range(2)]
    for peer in held:
        assert 0x02 == peer.associate()[0]

    with Parrot(server.port) as peer:
        request = associate_rq()
        peer.send(request[:10])
        peer.send(request[10:])
        rejected = peer.read_pdu()
        end, _ = peer.read_pdu()
    held.pop().release()
    until(lambda: server.listener.active() < 2)
    with Parrot(server.port) as peer:
        admitted, _ = peer.associate()
    for peer in held:
        peer.close()

    assert (0x03, b"\0\x02\x03\x02") == rejected
    assert (None, 0x02) == (end, admitted)


def test_beyond_the_limit_no_caller_makes_others_wait(serve):
    """Who has waited for longest makes room: a caller that speaks at once is always heard."""
    server = serve(limits={"associations": 1})
    with Parrot(server.port) as held:
        held.associate()
        silent = [Parrot(server.port) for _ in range(70)]
        cut_off = silent[0].read_pdu()

        assert _is_rejected(server.port)
        for peer in silent:
            peer.close()

    assert (None, b"") == cut_off


def _is_rejected(port):
    with Parrot(port) as peer:
        peer.send(associate_rq())
        return 0x03 == peer.read_pdu()[0]


def test_beyond_the_limit_garbage_is_cut_off(serve):
    server = serve(limits={"associations": 1})
    with Parrot(server.port) as held:
        held.associate()
        with Parrot(server.port) as peer:
            peer.send(b"GET / HTTP/1.0\r\n\r\n")

            assert (None, b"") == peer.read_pdu()


def test_reload_changes_peers_and_limits(serve):
    server = serve(unknown_callers="reject")
    server.listener.reload([Peer(aet="SCU")], LimitsSettings(associations=1))

    with Parrot(server.port) as peer, Parrot(server.port) as other:
        admitted, _ = peer.associate()
        rejected = other.associate()

    assert 0x02 == admitted
    assert (0x03, b"\0\x02\x03\x02") == rejected


# --- life and death ---


def test_a_port_that_is_taken():
    with Running() as server, pytest.raises(OSError, match="in use"):
        Running(port=server.port)


def test_a_socket_that_listens_already():
    listening = socket.create_server(("127.0.0.1", 0))
    with Running(sockets=[listening]) as server:
        assert listening.getsockname()[1] == server.port
        run("echoscu", "127.0.0.1", str(server.port))


def test_a_stop_is_no_failure_of_the_listeners_thread(serve, monkeypatch):
    """The thread may see that it is to stop, and end, before `stop` has done its next step."""
    server = serve()
    thread = server.listener._worker._thread
    plain = server.listener._wake_up

    def wake_up():
        plain()
        thread.join(1)

    monkeypatch.setattr(server.listener, "_wake_up", wake_up)
    with structlog.testing.capture_logs() as events:
        server.stop()

    assert [] == events


def test_stop_lets_an_object_finish(serve):
    server = serve()
    busy, go_on = threading.Event(), threading.Event()

    def keep(_received):
        busy.set()
        go_on.wait(120)

    server.store.before_answer = keep
    with Parrot(server.port) as peer, Parrot(server.port) as idle:
        peer.associate()
        idle.associate()
        peer.send(store_message())
        busy.wait(120)
        stopping = threading.Thread(target=server.stop, args=(10.0,))
        stopping.start()
        idle_end, _ = idle.read_pdu()
        go_on.set()
        response = peer.read_response()
        end, _ = peer.read_pdu()
        stopping.join()

    assert b"\0\0" == response[0x0900]
    assert (0x07, 0x07) == (idle_end, end)
    assert 0 == server.listener.active()


def test_stop_aborts_what_does_not_finish(serve):
    server = serve()
    with Parrot(server.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half")))
        until(lambda: server.store.received or server.listener.active())
        started = time.monotonic()
        server.stop(0.3)

    assert 0 == server.listener.active()
    assert time.monotonic() - started < 30


def test_stop_does_not_wait_for_connections_without_a_request(serve):
    server = serve()
    with Parrot(server.port), Parrot(server.port) as slow:
        slow.send(associate_rq()[:20])
        until(lambda: 2 == server.listener.active())
        started = time.monotonic()
        server.stop(120.0)

    assert time.monotonic() - started < 30


def test_a_fault_in_one_connection_does_not_end_the_listener(serve, monkeypatch):
    server = serve()
    with monkeypatch.context() as patch:
        patch.setattr(server.listener, "_serve", lambda *_, **__: 1 / 0)
        with Parrot(server.port) as peer:
            assert (None, b"") == peer.read_pdu()

    run("echoscu", "127.0.0.1", str(server.port))


def test_a_fault_in_a_peers_connection_beyond_the_limit_does_not_end_the_listener(monkeypatch):
    with (
        Running(limits={"associations": 2}, peers=[Peer(aet="CT1")]) as server,
        Parrot(server.port) as held,
        structlog.testing.capture_logs() as events,
    ):
        assert 0x02 == held.associate()[0]  # an unknown caller; one association is kept for peers
        with monkeypatch.context() as patch, Parrot(server.port) as peer:
            patch.setattr(server.listener, "_serve", lambda *_, **__: 1 / 0)
            peer.send(associate_rq(calling="CT1"))
            assert (None, b"") == peer.read_pdu()
        with Parrot(server.port) as peer:
            assert 0x02 == peer.associate(calling="CT1")[0]
    named = [event["event"] for event in events]
    assert (1, 0) == (named.count("connection_not_served"), named.count("worker_failed"))


def test_a_fault_at_the_end_of_an_association_stays_there():
    with Running(on_association_end=lambda _link: 1 / 0) as server:
        for _ in range(2):
            run("echoscu", "127.0.0.1", str(server.port))
        until(lambda: not server.listener.active())


def test_after_stop_the_port_is_closed(serve):
    server = serve()
    server.stop()

    with pytest.raises(ConnectionError):
        Parrot(server.port)


def test_the_end_of_an_association_is_reported_once(serve):
    server = serve()
    with Parrot(server.port) as peer:
        peer.associate(calling="SENDER")
        peer.send(store_message())
        peer.read_response()
        peer.release()
    with Parrot(server.port):
        pass
    until(lambda: server.ended and not server.listener.active())

    assert ["SENDER"] == [link.calling_aet for link in server.ended]
    assert server.ended[0] == server.store.received[0].record.info


def test_an_association_is_one_event(serve):
    with structlog.testing.capture_logs() as events:
        server = serve()
        with Parrot(server.port) as peer:
            peer.associate([(1, CT, (EXPLICIT,)), (3, ECHO, (EXPLICIT,))])
            peer.send(p_data(pdv(3, 3, echo_rq())))
            peer.read_response()
            peer.send(store_message(data=b"12345678"))
            peer.read_response()
            peer.release()
        until(lambda: not server.listener.active())

    [event] = [event for event in events if event["event"] == "association"]
    assert ("released", 1, 1, 8, "SCU") == tuple(
        event[key] for key in ("outcome", "echoes", "stores", "bytes", "calling_aet")
    )
    assert ["echo"] == [event["event"] for event in events if event["event"] == "echo"]


def test_a_probe_is_logged_at_debug_only(serve):
    with structlog.testing.capture_logs() as events:
        server = serve()
        Parrot(server.port).close()
        until(lambda: not server.listener.active() and events)

    assert {"debug"} == {event["log_level"] for event in events}


def test_nothing_is_left_behind(serve):
    server = serve()
    with Parrot(server.port) as peer:
        peer.associate()
        peer.release()
    until(lambda: not server.listener.active())
    time.sleep(0.1)
    threads, descriptors = threading.active_count(), descriptors_open()

    for number in range(12):
        with Parrot(server.port) as peer:
            if number % 4:
                peer.associate()
            if number % 4 == 2:
                peer.send(store_message())
                peer.read_response()
                peer.release()
            if number % 4 == 3:
                peer.send(p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half")))
    until(lambda: not server.listener.active())
    until(lambda: (threads, descriptors) >= (threading.active_count(), descriptors_open()))


def test_the_application_context_is_the_standards(serve):
    with Parrot(serve().port) as peer:
        _, content = peer.associate()

    assert APPLICATION_CONTEXT.encode() in content
