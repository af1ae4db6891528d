"""Bytes under deadlines, and command sets by the byte."""

import socket
import threading
import time
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from scp.wire.command_set import InvalidCommandSet, encode_response, parse
from scp.wire.connection import BUFFER_LENGTH, Closed, Connection, DeadlineExceeded, Interrupted
from scp.wire.pdus import COMMAND, fragment_pdus
from support.peer import CT, command, element, store_rq, us


@pytest.fixture
def ends():
    """A connection and the socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        other = socket.create_connection(listening.getsockname())
        connection, _ = listening.accept()
    connection = Connection(connection)
    yield connection, other
    connection.close()
    other.close()


def soon(seconds=60.0):
    return time.monotonic() + seconds


def later(action, seconds=0.1):
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_pieces_come_in_order_across_the_buffers_end(ends):
    connection, other = ends
    data = bytes(range(251)) * 4000
    threading.Thread(target=other.sendall, args=(data,)).start()
    got = bytearray()
    size = 1
    while len(got) < len(data):
        size = min(size * 3 % 60_000, len(data) - len(got))
        got += connection.read_exactly(size, soon())

    assert len(data) > 3 * BUFFER_LENGTH
    assert data == got


def test_some_is_what_is_there(ends):
    connection, other = ends
    other.sendall(b"abc")

    assert b"ab" == connection.read_some(2, soon())
    assert b"c" == connection.read_some(100, soon())
    assert not connection.has_data


class Asking(socket.socket):
    """A socket that notes when an acknowledgement is asked for."""

    def __init__(self, connection):
        super().__init__(fileno=connection.detach())
        self.asked = 0

    def setsockopt(self, *arguments):
        self.asked += arguments == (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        super().setsockopt(*arguments)


def test_a_peer_that_is_waited_for_is_acknowledged_at_once():
    """A sender with Nagle's algorithm on holds its last segment back until it is (RFC 896)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        other = socket.create_connection(listening.getsockname())
        accepted = Asking(listening.accept()[0])
    connection = Connection(accepted)
    other.sendall(b"half")
    later(lambda: other.sendall(b"rest"))
    assert b"halfrest" == connection.read_exactly(8, soon())
    assert 1 == accepted.asked
    connection.send(b"answer", soon())
    later(lambda: other.sendall(b"more"))
    assert b"more" == connection.read_exactly(4, soon())
    assert 1 == accepted.asked  # the answer carried it
    connection.close()
    other.close()


def test_a_deadline_passes(ends):
    connection, _ = ends
    started = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        connection.read_exactly(1, soon(0.2))
    assert time.monotonic() - started > 0.15


def test_the_buffers_memory_is_given_back_while_nothing_comes(ends, monkeypatch):
    monkeypatch.setattr("scp.wire.connection.RELEASE_AFTER", 0.05)
    connection, other = ends
    other.sendall(b"abc")
    connection.read_exactly(3, soon())
    later(lambda: other.sendall(b"def"), 0.2)

    assert connection.wait(soon())
    assert b"def" == connection.read_exactly(3, soon())


def test_half_a_piece_survives_a_long_wait(ends, monkeypatch):
    monkeypatch.setattr("scp.wire.connection.RELEASE_AFTER", 0.05)
    connection, other = ends
    other.sendall(b"abc")
    later(lambda: other.sendall(b"def"), 0.2)

    assert b"abcdef" == connection.read_exactly(6, soon())


def test_waking_ends_a_wait_but_no_piece(ends):
    connection, other = ends
    later(connection.wake)

    assert not connection.wait(soon())
    later(connection.wake, 0.05)
    later(lambda: other.sendall(b"x"), 0.15)
    assert b"x" == connection.read_exactly(1, soon())


def test_cutting_ends_everything(ends):
    connection, _ = ends
    later(connection.interrupt)

    with pytest.raises(Interrupted):
        connection.read_exactly(1, soon())
    with pytest.raises(Interrupted):
        connection.wait(soon())


def test_the_end_of_the_connection(ends):
    connection, other = ends
    other.sendall(b"x")
    other.close()

    assert b"x" == connection.read_exactly(1, soon())
    with pytest.raises(Closed):
        connection.wait(soon())


def test_sending_to_a_peer_that_does_not_read(ends):
    connection, _ = ends

    with pytest.raises(Closed, match="reads nothing"):
        connection.send(bytes(64 * 1024 * 1024), soon(0.2))


def test_hanging_up_lets_the_last_word_arrive(ends):
    connection, other = ends
    sending = threading.Thread(target=other.sendall, args=(bytes(3_000_000),))
    sending.start()
    connection.send(b"goodbye", soon())
    hanging_up = threading.Thread(target=connection.close_gracefully, args=(5,))
    hanging_up.start()
    sending.join()

    assert b"goodbye" == other.recv(100)
    other.close()
    hanging_up.join(120)
    assert not hanging_up.is_alive()


def test_calls_after_the_end_do_nothing(ends):
    connection, _ = ends
    connection.close()

    connection.close()
    connection.wake()
    connection.interrupt()


# --- command sets ---

uids = st.from_regex(r"[1-9][0-9]{0,5}(\.[0-9]{1,6}){1,8}", fullmatch=True)


@given(uids, uids, st.integers(0, 65535), st.booleans())
def test_what_pydicom_writes_is_read(sop_class, sop_instance, number, has_data):
    dataset = Dataset()
    dataset.AffectedSOPClassUID, dataset.AffectedSOPInstanceUID = sop_class, sop_instance
    dataset.CommandField, dataset.MessageID, dataset.Priority = 1, number, 0
    dataset.CommandDataSetType = 1 if has_data else 0x0101

    read = parse(encode(dataset, is_implicit_vr=True, is_little_endian=True))

    assert (sop_class, sop_instance, number, has_data, 1) == (
        read.sop_class_uid,
        read.sop_instance_uid,
        read.message_id,
        read.has_data_set,
        read.field,
    )


@given(st.integers(0, 65535), st.sampled_from(["", "odd", "even"]))
def test_what_we_write_is_read_by_pydicom(status, comment):
    encoded = encode_response(parse(store_rq("1.2.3", message=7)), status, comment)

    dataset = decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    assert (0x8001, 7, 0x0101, status, CT, "1.2.3", comment) == (
        dataset.CommandField,
        dataset.MessageIDBeingRespondedTo,
        dataset.CommandDataSetType,
        dataset.Status,
        dataset.AffectedSOPClassUID,
        dataset.AffectedSOPInstanceUID,
        dataset.get("ErrorComment", ""),
    )
    assert len(encoded) - 12 == dataset.CommandGroupLength


@given(st.binary(max_size=200))
def test_nonsense_is_malformed_or_read(encoded):
    with suppress(InvalidCommandSet):
        assert 0 <= parse(encoded).field <= 0xFFFF


def test_a_uid_longer_than_a_uid_is_not_repeated():
    encoded = encode_response(parse(store_rq("1" * 100)), 0)

    assert b"1" * 65 not in encoded


def test_group_length_and_unknown_elements_are_no_matter():
    read = parse(command(us(0x0100, 0x30), us(0x0110, 1), us(0x0800, 0x0101), element(0x5555, b"xx")))

    assert (0x30, False) == (read.field, read.has_data_set)


@pytest.mark.parametrize("most", [0, 1, 6, 7, 20, 30, 16384])
def test_pdus_of_a_command_set_keep_to_the_maximum(most):
    encoded = bytes(range(100))
    pdus, got = fragment_pdus(5, COMMAND, encoded, most), b""
    while pdus:
        length = int.from_bytes(pdus[2:6], "big")
        assert most < 7 or length <= most
        content, pdus = pdus[6 : 6 + length], pdus[6 + length :]
        got += content[6:]
        assert (5, 1 if pdus else 3) == (content[4], content[5])

    assert encoded == got
