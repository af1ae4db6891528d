"""Several C-STORE operations at one time: by an asynchronous operations window, and just sent ahead."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index import Index
from index.storage.journal import Journal
from scp.observing.association_record import AssociationRecord
from scp.services.store import MAX_OPERATIONS, MAX_WAITING, StoreGroup, StoreOperation, StoreService
from scp.wire.command_set import parse
from support.dicom import CT_IMAGE_STORAGE, ROOT, encoded, instance
from support.filling import served
from support.peer import (
    EXPLICIT,
    Parrot,
    Running,
    echo_rq,
    elements,
    item,
    p_data,
    pdv,
    store_message,
    store_rq,
    until,
)

SUCCESS, UNREADABLE, NOT_KEPT = 0x0000, 0xC001, 0xA700
ECHO = "1.2.840.10008.1.1"
CONTEXTS = ((1, CT_IMAGE_STORAGE, (EXPLICIT,)), (3, ECHO, (EXPLICIT,)))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with served(tmp_path / "data") as index:
        yield index


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each write of the journal had."""
    appended: list[int] = []
    plain = Journal.append

    def append(journal: Journal, first: int, bodies: list[bytes]) -> None:
        appended.append(len(bodies))
        plain(journal, first, bodies)

    monkeypatch.setattr(Journal, "append", append)
    return appended


def window(invoked: int, performed: int = 1) -> bytes:
    """The user item of PS3.7 Table D.3-7."""
    return item(0x53, struct.pack(">HH", invoked, performed))


def messages(count: int, **attributes: Any) -> bytes:
    return b"".join(
        store_message(
            f"{ROOT}.1.1.{number}", encoded(instance(1, 1, number, **attributes)), message=number, size=16000
        )
        for number in range(1, count + 1)
    )


def answer_of(peer: Parrot) -> tuple[int, int]:
    """Message ID Being Responded To and Status of the next response (PS3.7 Section E.1)."""
    found = peer.read_response()
    return (struct.unpack("<H", found[0x0120])[0], struct.unpack("<H", found[0x0900])[0])


def granted(answer: tuple[int, bytes]) -> tuple[int, ...] | None:
    """The window in an A-ASSOCIATE-AC, or None."""
    kind, body = answer
    assert 0x02 == kind
    at = body.find(b"\x53\x00\x00\x04")
    return None if at < 0 else struct.unpack_from(">HH", body, at + 4)


@pytest.mark.parametrize(
    ("proposed", "expected"),
    [(None, None), (1, None), (4, (4, 1)), (16, (16, 1)), (0, (16, 1)), (1000, (16, 1))],
)
def test_what_is_granted(index: Index, proposed: int | None, expected: tuple[int, int] | None) -> None:
    """0 is unlimited (PS3.7 Section D.3.3.3.1)."""
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        extra = b"" if proposed is None else window(proposed, 1 if proposed == 1 else 4)
        answer = peer.associate(CONTEXTS, extra=extra)
        assert expected == granted(answer) or (proposed == 1 and granted(answer) in (None, (1, 1)))
        peer.release()


@pytest.mark.parametrize("extra", [b"", window(16)], ids=["sent ahead", "window"])
def test_what_has_arrived_together_shares_a_sync_and_is_answered_in_order(
    index: Index, groups: list[int], extra: bytes
) -> None:
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        peer.associate(CONTEXTS, extra=extra)
        peer.send(messages(40))
        answers = [answer_of(peer) for _ in range(40)]
        assert [(number, SUCCESS) for number in range(1, 41)] == answers
        peer.release()
    assert 40 == sum(groups)
    assert max(groups) <= MAX_OPERATIONS
    assert len(groups) < 40
    assert index.catch_up(60)
    assert [40] == [study["instances"] for study in index.studies()]


def test_a_large_one_does_not_wait(index: Index, groups: list[int]) -> None:
    """It holds an open file: there are descriptors for one of each association."""
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        peer.associate(CONTEXTS, extra=window(16))
        peer.send(messages(6, EncapsulatedDocument=bytes(100_000)))
        assert [(number, SUCCESS) for number in range(1, 7)] == [answer_of(peer) for _ in range(6)]
        peer.release()
    assert [1] * 6 == groups
    assert index.catch_up(60)
    assert [6] == [study["instances"] for study in index.studies()]


def test_one_that_fails_leaves_the_others(index: Index) -> None:
    bad = store_message(f"{ROOT}.1.1.9", encoded(instance(1, 1, 9, StudyInstanceUID="none")), message=9)
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        peer.associate(CONTEXTS)
        peer.send(messages(2) + bad + messages(3))
        expected = [(1, SUCCESS), (2, SUCCESS), (9, UNREADABLE), (1, SUCCESS), (2, SUCCESS), (3, SUCCESS)]
        assert expected == [answer_of(peer) for _ in expected]
        peer.release()


def test_another_request_is_answered_after_what_came_before(index: Index) -> None:
    echo = p_data(pdv(3, 3, echo_rq(7)))
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        peer.associate(CONTEXTS)
        peer.send(messages(2) + echo)
        assert [(1, SUCCESS), (2, SUCCESS), (7, SUCCESS)] == [answer_of(peer) for _ in range(3)]
        peer.release()


def test_a_release_at_once_is_answered_last(index: Index) -> None:
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        peer.associate(CONTEXTS)
        peer.send(messages(3) + struct.pack(">BxL4x", 0x05, 4))
        assert [SUCCESS] * 3 == [answer_of(peer)[1] for _ in range(3)]
        assert 0x06 == peer.read_pdu()[0]
    assert index.catch_up(60)
    assert [3] == [study["instances"] for study in index.studies()]


def test_complete_ones_are_answered_while_the_next_one_is_on_its_way(index: Index) -> None:
    whole, rest = messages(2), messages(3)[len(messages(2)) :]
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        peer.associate(CONTEXTS)
        peer.send(whole + rest[:200])
        assert [SUCCESS] * 2 == [answer_of(peer)[1] for _ in range(2)]
        peer.send(rest[200:])
        assert (3, SUCCESS) == answer_of(peer)
        peer.release()


def test_complete_ones_are_kept_though_the_peer_has_gone(index: Index) -> None:
    with Running(store=StoreService(index)) as server:
        with Parrot(server.port) as peer:
            peer.associate(CONTEXTS)
            peer.send(messages(3) + messages(1)[:300])
        until(lambda: not server.listener.active())
    assert index.catch_up(60)
    assert [3] == [study["instances"] for study in index.studies()]


def test_complete_ones_are_answered_before_the_abort_of_a_stop(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept instance whose answer is lost is sent again: the modality shows it as failed."""
    with Running(store=StoreService(index)) as server, Parrot(server.port) as peer:
        peer.associate(CONTEXTS)
        added: list[StoreOperation] = []
        plain = StoreGroup.add

        def add(group: StoreGroup, operation: StoreOperation) -> None:
            added.append(operation)
            if len(added) == 3:
                for association in server.listener._snapshot():
                    association.stop_when_idle()
            plain(group, operation)

        monkeypatch.setattr(StoreGroup, "add", add)
        peer.send(messages(6))
        assert [(1, SUCCESS), (2, SUCCESS), (3, SUCCESS)] == [answer_of(peer) for _ in range(3)]
        assert 0x07 == peer.read_pdu()[0]
        assert (None, b"") == peer.read_pdu()
    assert index.catch_up(60)
    assert [3] == [study["instances"] for study in index.studies()]


class Sender:
    """C-STORE operations without a network, where more has always arrived already."""

    def __init__(self, index: Index) -> None:
        record = AssociationRecord("127.0.0.1")
        record.set_titles("SCU", "SCP")
        self.group = StoreService(index).group(record, lambda: True)
        self.answers: list[tuple[int, int]] = []

    def begin(self, number: int, uid: str = "") -> StoreOperation:
        command = parse(store_rq(uid or f"{ROOT}.1.1.{number}", sop_class=CT_IMAGE_STORAGE, message=number))
        return self.group.begin(command, CT_IMAGE_STORAGE, EXPLICIT, self.take)

    def send(self, number: int, **attributes: Any) -> None:
        operation = self.begin(number)
        operation.write(encoded(instance(1, 1, number, **attributes)))
        operation.end()

    def take(self, response: bytes) -> None:
        found = elements(response)
        self.answers.append((found[0x0120][0], struct.unpack("<H", found[0x0900])[0]))


def test_a_small_one_does_not_wait_for_a_large_one(index: Index) -> None:
    """The large one may take minutes: the sender of the small one would give it up."""
    sender = Sender(index)
    sender.send(1)
    large = sender.begin(2)
    large.write(bytes(60_000))
    assert [] == sender.answers
    large.write(bytes(10_000))
    assert [(1, SUCCESS)] == sender.answers
    large.discard("")


def test_a_small_one_does_not_wait_for_a_data_set_that_is_dropped(index: Index) -> None:
    sender = Sender(index)
    sender.send(1)
    refused = sender.begin(2, "no UID")
    refused.write(bytes(1000))
    assert [(1, SUCCESS)] == sender.answers
    refused.end()
    assert [(1, SUCCESS), (2, UNREADABLE)] == sender.answers


def test_what_waits_in_memory_is_bounded(index: Index) -> None:
    sender = Sender(index)
    for number in range(1, 6):
        assert [] == sender.answers
        sender.send(number, EncapsulatedDocument=bytes(60_000))
    assert 5 * 60_000 > MAX_WAITING > 4 * 60_000
    assert [(number, SUCCESS) for number in range(1, 6)] == sender.answers


def test_a_fault_of_our_own_is_answered_to_all_and_leaves_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Sender(index)
    sender.send(1)
    sender.send(2)
    monkeypatch.setattr("scp.services.store.keep_all", lambda _: 1 / 0)
    sender.group.flush()
    assert [(1, NOT_KEPT), (2, NOT_KEPT)] == sender.answers
    monkeypatch.undo()
    sender.send(3)
    large = sender.begin(4)
    large.write(bytes(100_000))
    assert (3, SUCCESS) == sender.answers[-1]
    monkeypatch.setattr("scp.services.store.keep_all", lambda _: 1 / 0)
    large.end()
    assert (4, NOT_KEPT) == sender.answers[-1]
    assert [] == [file for file in (tmp_path / "data" / "incoming").rglob("*") if file.is_file()]
