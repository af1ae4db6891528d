"""C-GET and C-MOVE, message by message, with scripted peers (PS3.4 Sections C.4.2 and C.4.3)."""

import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from pydicom.dataset import Dataset

from index import DEFLATED, DataSetFile
from scp.services import sending
from scp.services.retrieve import FAILURES_LOGGED
from scp.settings.sections import Peer
from support.archive import (
    C_GET,
    C_MOVE,
    CANCELLED,
    GET,
    MOVE,
    PATIENT_GET,
    PENDING,
    SUCCESS,
    Archive,
    Destination,
    associated,
    cancel,
    identifier,
    number,
    read_message,
    request,
    role,
    store_response,
)
from support.dicom import ROOT, encoded, instance
from support.filling import ORIGIN, receive
from support.peer import CT, EXPLICIT, IMPLICIT, Parrot, accepted, p_data, pdv, store_message, until

MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY = encoded(identifier("STUDY", StudyInstanceUID=f"{ROOT}.1"))
COUNTS = {0x1020: "remaining", 0x1021: "completed", 0x1022: "failed", 0x1023: "warning"}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An archive with three instances of one study."""
    archive = Archive(tmp_path / "data")
    for one in (1, 2, 3):
        receive(archive.index, instance(number=one))
    yield archive
    archive.close()


@pytest.fixture
def destination(archive: Archive) -> Iterator[Callable[..., Destination]]:
    """Make destinations with the AE title DEST."""
    made = []

    def make(*arguments: object, **options: object) -> Destination:
        made.append(Destination(*arguments, **options))
        archive.add_peer(aet="DEST", host="127.0.0.1", port=made[-1].port)
        return made[-1]

    yield make
    for one in made:
        one.close()


def counts(command: dict[int, bytes]) -> dict[str, int]:
    return {name: number(command, element) for element, name in COUNTS.items() if element in command}


def responses(peer: Parrot) -> list[tuple[int, dict[str, int], bytes]]:
    """Return status, counts and identifier of all responses to a C-MOVE."""
    found = []
    while not found or found[-1][0] == PENDING:
        _, command, data = read_message(peer)
        found.append((number(command, 0x0900), counts(command), data))
    return found


def moved(archive: Archive, data: bytes = STUDY, to: str = "DEST") -> list[tuple[int, dict[str, int], bytes]]:
    """C-MOVE, and return all responses."""
    with associated(archive.port, MOVE) as peer:
        peer.send(request(C_MOVE, MOVE, data, destination=to))
        found = responses(peer)
        assert peer.release() == 0x06
    return found


def failed_list(*numbers: int) -> bytes:
    wanted = Dataset()
    wanted.FailedSOPInstanceUIDList = [f"{ROOT}.1.1.{one}" for one in numbers]
    return encoded(wanted)


def got(peer: Parrot, status: int = SUCCESS) -> tuple[list[tuple[str, bytes]], list[dict[int, bytes]]]:
    """Store what a C-GET sends; return the objects, and the responses to the C-GET."""
    objects, answers = [], []
    while not answers or number(answers[-1], 0x0900) == PENDING:
        context, command, data = read_message(peer)
        if number(command, 0x0100) == 0x0001:
            objects.append((command[0x1000].decode().strip("\0"), data))
            peer.send(p_data(pdv(context, 3, store_response(command, status))))
        else:
            answers.append(command)
    return objects, answers


def test_get_sends_the_data_sets_as_stored(archive: Archive) -> None:
    with associated(archive.port, GET, CT) as peer:
        peer.send(request(C_GET, GET, STUDY))
        objects, answers = got(peer)
        assert peer.release() == 0x06
    assert [(f"{ROOT}.1.1.{n}", encoded(instance(number=n))) for n in (1, 2, 3)] == objects
    assert [PENDING, PENDING, SUCCESS] == [number(one, 0x0900) for one in answers]
    assert [2, 1] == [counts(one)["remaining"] for one in answers[:2]]
    assert {"completed": 3, "failed": 0, "warning": 0} == counts(answers[-1])


def test_move_names_its_originator(archive: Archive, destination: Callable[..., Destination]) -> None:
    dest = destination()
    answers = moved(archive)
    assert [(f"{ROOT}.1.1.{n}", encoded(instance(number=n))) for n in (1, 2, 3)] == dest.received
    assert {b"SCU ", b"\x07\0"} == {dest.commands[0][0x1030], dest.commands[0][0x1031]}
    assert [1, 2, 3] == [number(one, 0x0110) for one in dest.commands]
    assert (SUCCESS, {"completed": 3, "failed": 0, "warning": 0}, b"") == answers[-1]
    assert [(PENDING, 2), (PENDING, 1)] == [(status, one["remaining"]) for status, one, _ in answers[:-1]]


@pytest.mark.parametrize("to", ["NOBODY", "NOWHERE"])
def test_an_unknown_destination_is_answered_a801(archive: Archive, to: str) -> None:
    archive.add_peer(aet="NOWHERE")  # it has no host and port
    assert [(0xA801, {"completed": 0, "failed": 0, "warning": 0}, b"")] == moved(archive, to=to)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (encoded(Dataset()), 0xA900),
        (encoded(identifier("PATIENT", PatientID="P1")), 0xA900),  # not in the Study Root
        (encoded(identifier("STUDY")), 0xA900),
        (b"\x08\0\x52\0CS\x99\x99STUDY", 0xA900),  # a value that is cut off
        (STUDY[:-4], 0xA900),
        (encoded(identifier("STUDY", StudyInstanceUID="9.9")), SUCCESS),
    ],
)
def test_requests_that_send_nothing(archive: Archive, data: bytes, status: int) -> None:
    archive.add_peer(aet="DEST", host="127.0.0.1", port=9)
    assert [(status, {"completed": 0, "failed": 0, "warning": 0}, b"")] == moved(archive, data)


def test_get_in_the_context_of_move_is_refused(archive: Archive) -> None:
    with associated(archive.port, MOVE) as peer:
        peer.send(request(C_GET, MOVE, STUDY))
        assert 0x0122 == responses(peer)[0][0]


def test_a_destination_that_cannot_be_reached(archive: Archive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    archive.add_peer(aet="DEST", host="127.0.0.1", port=port)
    assert (0xA702, {"completed": 0, "failed": 3, "warning": 0}, failed_list(1, 2, 3)) == moved(archive)[-1]


def test_a_destination_that_rejects(archive: Archive, destination: Callable[..., Destination]) -> None:
    destination(rejects=True)
    assert (0xA702, {"completed": 0, "failed": 3, "warning": 0}, failed_list(1, 2, 3)) == moved(archive)[-1]


def test_a_destination_that_dies_at_one_object_gets_the_others(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    dest = destination(lambda one: None if one == 2 else 0)
    assert (0xB000, {"completed": 2, "failed": 1, "warning": 0}, failed_list(2)) == moved(archive)[-1]
    assert [f"{ROOT}.1.1.1", f"{ROOT}.1.1.3"] == [uid for uid, _ in dest.received]


def test_a_destination_that_always_dies_is_given_up(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    for one in range(4, 10):
        receive(archive.index, instance(number=one))
    dest = destination(lambda _: None)
    assert (0xA702, failed_list(*range(1, 10))) == moved(archive)[-1][::2]
    assert 3 == len(dest.proposed)


def test_refusals_and_warnings_of_the_destination_are_counted(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    destination(lambda one: {1: 0xA700, 2: 0xB007}.get(one, 0))
    assert (0xB000, {"completed": 1, "failed": 1, "warning": 1}, failed_list(1)) == moved(archive)[-1]


def test_an_object_for_which_no_context_is_accepted_fails_alone(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    receive(archive.index, instance(number=4, SOPClassUID=MR))
    dest = destination(accepts=lambda sop_class, syntaxes: syntaxes[0] if sop_class == CT else None)
    assert (0xB000, {"completed": 3, "failed": 1, "warning": 0}, failed_list(4)) == moved(archive)[-1]
    assert 1 == len(dest.proposed)


def test_a_damaged_object_fails_alone(archive: Archive, destination: Callable[..., Destination]) -> None:
    (_, second, _) = archive.index.retrieval.find_uid(f"{ROOT}.1").instances()
    (archive.index.data / second.path).unlink()
    destination()
    assert (0xB000, {"completed": 2, "failed": 1, "warning": 0}, failed_list(2)) == moved(archive)[-1]


def test_one_association_for_many_kinds_two_for_more(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    for one in range(130):
        receive(archive.index, instance(number=10 + one, SOPClassUID=f"1.2.3.{one}"))
    dest = destination()
    assert (SUCCESS, {"completed": 133, "failed": 0, "warning": 0}, b"") == moved(archive)[-1]
    assert [128, 134] == [len(dest.proposed[0]), sum(map(len, dest.proposed[1:]))]
    assert 133 == len({uid for uid, _ in dest.received})


def test_a_transfer_syntax_that_is_not_stored_is_made(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    dest = destination(accepts=lambda _, syntaxes: IMPLICIT if IMPLICIT in syntaxes else None)
    assert SUCCESS == moved(archive)[-1][0]
    assert [encoded(instance(number=n), IMPLICIT) for n in (1, 2, 3)] == [data for _, data in dest.received]


def test_what_is_too_large_to_be_transcoded_is_not_read(
    archive: Archive, destination: Callable[..., Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TRANSCODE_LIMIT", 10)
    monkeypatch.delattr(DataSetFile, "read")
    destination(accepts=lambda _, syntaxes: IMPLICIT if IMPLICIT in syntaxes else None)
    assert (0xA702, failed_list(1, 2, 3)) == moved(archive)[-1][::2]


@pytest.mark.parametrize("content", [b"x", b"x" * 100_001, b"x" * 16_378])
def test_a_deflated_data_set_of_odd_length_is_padded(
    archive: Archive, destination: Callable[..., Destination], content: bytes
) -> None:
    """PS3.5 Section A.5. DCMTK aborts at a fragment with an odd length."""
    dataset = instance(number=4)
    deflate = zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
    data = deflate.compress(encoded(dataset)) + deflate.flush()
    data += b"\0" + content if len(data + content) % 2 == 0 else content
    receiver = archive.index.receive(ORIGIN, CT, dataset.SOPInstanceUID, DEFLATED)
    receiver.write(data)
    receiver.keep()
    dest = destination()
    keys = identifier("IMAGE", SOPInstanceUID=dataset.SOPInstanceUID)
    assert SUCCESS == moved(archive, encoded(keys))[-1][0]
    assert data + b"\0" == dest.received[0][1]


def test_ten_thousand_uids_in_one_list(archive: Archive, destination: Callable[..., Destination]) -> None:
    dest = destination()
    uids = [f"{ROOT}.1.1.{one}" for one in range(10_000)]
    with associated(archive.port, MOVE, syntax=IMPLICIT) as peer:
        data = encoded(identifier("IMAGE", SOPInstanceUID=uids), IMPLICIT)
        command, rest = request(C_MOVE, MOVE, b"", destination="DEST"), b""
        for at in range(0, len(data), 60_000):
            rest += p_data(pdv(1, 2 if at + 60_000 >= len(data) else 0, data[at : at + 60_000]))
        peer.send(command[:-12] + rest)
        assert (SUCCESS, {"completed": 3, "failed": 0, "warning": 0}, b"") == responses(peer)[-1]
    assert 3 == len(dest.received)


def test_the_list_of_failed_uids_may_be_longer_than_64_kb(archive: Archive) -> None:
    archive.add_peer(aet="DEST", host="127.0.0.1", port=1)
    count = 2500
    for one in range(100_000, 100_000 + count):
        receive(archive.index, instance(number=one))
    status, found, data = moved(archive)[-1]
    assert (0xA702, count + 3) == (status, found["failed"])
    # PS3.5 Section 6.2.2: UN, with a length of 32 bits.
    assert b"\x08\0\x58\0UN\0\0" == data[:8]
    assert count + 3 == len(data[12:].split(b"\\"))


def test_what_is_sent_as_stored_is_not_read_into_memory(
    archive: Archive, destination: Callable[..., Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: DataSetFile) -> bytes:
        raise AssertionError("the whole data set was read")

    monkeypatch.setattr(DataSetFile, "read", read)
    large = instance(number=4, PixelData=bytes(3_000_000), BitsAllocated=8)
    large["PixelData"].VR = "OB"
    receive(archive.index, large)
    dest = destination()
    assert SUCCESS == moved(archive)[-1][0]
    assert encoded(large) == dest.received[-1][1]


def test_move_is_cancelled(archive: Archive, destination: Callable[..., Destination]) -> None:
    with associated(archive.port, MOVE) as peer:

        def answer(one: int) -> int:
            if one == 2:
                peer.send(cancel())
            return 0

        destination(answer)
        peer.send(request(C_MOVE, MOVE, STUDY, destination="DEST"))
        last = responses(peer)[-1]
        assert (CANCELLED, {"remaining": 1, "completed": 2, "failed": 0, "warning": 0}, b"") == last
        assert peer.release() == 0x06


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_cancel_while_the_destination_is_silent(
    archive: Archive,
    destination: Callable[..., Destination],
    monkeypatch: pytest.MonkeyPatch,
    *,
    vanishes: bool,
) -> None:
    """It was seen when the destination had been waited for, after a minute. So was an end."""
    monkeypatch.setattr("scp.association.store_association.RESPONSE_SECONDS", 3600)
    peer, never = associated(archive.port, MOVE), Event()

    def answer(_: int) -> int:
        if vanishes:
            peer.close()
        else:
            peer.send(cancel())
        never.wait()
        return 0

    destination(answer)
    peer.send(request(C_MOVE, MOVE, STUDY, destination="DEST"))
    if vanishes:
        until(lambda: archive.listener.active() == 0)
    else:
        status, counted, _ = responses(peer)[-1]
        assert (CANCELLED, {"remaining": 2, "completed": 0, "failed": 1, "warning": 0}) == (status, counted)
        assert peer.release() == 0x06
    never.set()


def test_get_is_cancelled(archive: Archive) -> None:
    with associated(archive.port, GET, CT) as peer:
        peer.send(request(C_GET, GET, STUDY))
        context, command, _ = read_message(peer)
        peer.send(cancel())
        peer.send(p_data(pdv(context, 3, store_response(command))))
        objects, answers = got(peer)
        assert [] == objects
        assert CANCELLED == number(answers[-1], 0x0900)
        assert {"remaining": 2, "completed": 1, "failed": 0, "warning": 0} == counts(answers[-1])
        # The association can be used again.
        peer.send(request(C_GET, GET, STUDY, message=8))
        assert 3 == len(got(peer)[0])


def test_a_cancel_of_another_message_cancels_nothing(archive: Archive) -> None:
    with associated(archive.port, GET, CT) as peer:
        peer.send(request(C_GET, GET, STUDY) + cancel(message=99))
        assert 3 == len(got(peer)[0])


@pytest.mark.parametrize("abort", [False, True])
def test_a_requester_that_vanishes_during_get(archive: Archive, *, abort: bool) -> None:
    peer = associated(archive.port, GET, CT)
    peer.send(request(C_GET, GET, STUDY))
    read_message(peer)
    if abort:
        peer.send(struct.pack(">BxL4x", 7, 4))
    peer.close()
    until(lambda: archive.listener.active() == 0)
    with associated(archive.port, GET, CT) as other:
        other.send(request(C_GET, GET, STUDY))
        assert 3 == len(got(other)[0])


def test_a_requester_that_vanishes_during_move(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    peer = associated(archive.port, MOVE)

    def answer(one: int) -> int:
        if one == 1:
            peer.close()
        return 0

    dest = destination(answer)
    peer.send(request(C_MOVE, MOVE, STUDY, destination="DEST"))
    until(lambda: archive.listener.active() == 0)
    assert len(dest.received) < 3


def test_a_destination_that_is_silent_does_not_stop_a_shutdown(
    archive: Archive, destination: Callable[..., Destination]
) -> None:
    reached = []

    def answer(one: int) -> int:
        reached.append(one)
        until(lambda: archive.listener.active() == 0)
        return 0

    destination(answer)
    peer = associated(archive.port, MOVE)
    peer.send(request(C_MOVE, MOVE, STUDY, destination="DEST"))
    until(lambda: bool(reached))
    archive.stop()
    assert 0 == archive.listener.active()
    peer.close()


def test_get_needs_the_role(archive: Archive) -> None:
    with associated(archive.port, GET) as peer:
        peer.send(request(C_GET, GET, STUDY))
        assert 0xA702 == responses(peer)[-1][0]


def test_an_object_that_fails_at_the_requester(archive: Archive) -> None:
    with associated(archive.port, GET, CT) as peer:
        peer.send(request(C_GET, GET, STUDY))
        objects, answers = got(peer, status=0xC000)
        # The identifier follows the last command set.
        assert 3 == len(objects)
        assert {"completed": 0, "failed": 3, "warning": 0} == counts(answers[-1])


def test_a_response_that_was_not_asked_for_aborts(archive: Archive) -> None:
    with associated(archive.port, GET, CT) as peer:
        command = {0x0002: CT.encode(), 0x0110: b"\1\0"}
        peer.send(p_data(pdv(3, 3, store_response(command))))
        assert 0x07 == peer.read_pdu()[0]


def test_objects_can_be_stored_while_another_association_retrieves(archive: Archive) -> None:
    with associated(archive.port, GET, CT) as peer, Parrot(archive.port) as sender:
        peer.send(request(C_GET, GET, STUDY))
        context, command, _ = read_message(peer)
        sender.associate()
        new = instance(number=9)
        sender.send(store_message(new.SOPInstanceUID, encoded(new)))
        assert b"\0\0" == sender.read_response()[0x0900]
        peer.send(p_data(pdv(context, 3, store_response(command))))
        assert 2 == len(got(peer)[0])


def test_by_patient(archive: Archive) -> None:
    with associated(archive.port, PATIENT_GET, CT) as peer:
        peer.send(request(C_GET, PATIENT_GET, encoded(identifier("PATIENT", PatientID="P1"))))
        assert 3 == len(got(peer)[0])


def test_the_log_says_why_but_not_for_thousands(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    for one in range(4, 3 + 2 * FAILURES_LOGGED):
        receive(archive.index, instance(number=one))
    archive.add_peer(aet="DEST", host="127.0.0.1", port=1)
    moved(archive)
    out = capsys.readouterr().out
    assert FAILURES_LOGGED == out.count("retrieve_instance_failed")
    assert "Doe" not in out


@pytest.mark.parametrize(
    ("services", "get", "receives", "stores"),
    [(["retrieve"], 0, 0, 1), (["store"], 1, 1, 0), (["store", "retrieve"], 0, 0, 0)],
)
def test_who_may_retrieve(tmp_path: Path, services: list[str], get: int, receives: int, stores: int) -> None:
    """Results of contexts (PS3.8 Table 9-18): C-GET, storage with the role of the SCP, and without."""
    archive = Archive(tmp_path / "data", Peer(aet="SCU", services=services))
    try:
        with Parrot(archive.port) as peer:
            contexts = [(1, GET, (EXPLICIT,)), (3, CT, (EXPLICIT,))]
            _, content = peer.associate(contexts, extra=role(CT))
        with Parrot(archive.port) as peer:
            _, without_role = peer.associate()
    finally:
        archive.close()
    assert [get, receives] == [accepted(content)[one][0] for one in (1, 3)]
    assert stores == accepted(without_role)[1][0]
