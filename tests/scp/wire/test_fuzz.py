"""Nonsense in every state of a connection: each ends it at most, and the listener answers the next caller."""

import struct
import threading
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_associate_rq import SERVED

from support.peer import (
    CT,
    ECHO,
    EXPLICIT,
    RELEASE_RQ,
    Parrot,
    Running,
    associate_rq,
    echo_rq,
    p_data,
    pdu,
    pdv,
    store_message,
    store_rq,
    until,
)

CONTEXTS = [(1, CT, (EXPLICIT,)), (3, ECHO, (EXPLICIT,))]

# How a connection gets into each state, and whether that is by an accepted association.
STATES = {
    "before the request": b"",
    "within the request": associate_rq(CONTEXTS)[:50],
    "established": associate_rq(CONTEXTS),
    "within a command": associate_rq(CONTEXTS) + p_data(pdv(1, 1, store_rq()[:30])),
    "before a data set": associate_rq(CONTEXTS) + p_data(pdv(1, 3, store_rq())),
    "within a data set": associate_rq(CONTEXTS) + p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half")),
    "within a fragment": associate_rq(CONTEXTS) + p_data(pdv(1, 3, store_rq()), pdv(1, 0, b"half"))[:-2],
    "after the release": associate_rq(CONTEXTS) + RELEASE_RQ,
}

VALID = (
    associate_rq(CONTEXTS),
    store_message(data=bytes(300)),
    p_data(pdv(3, 3, echo_rq())),
    p_data(pdv(1, 3, store_rq()), pdv(1, 2, b"data")),
    RELEASE_RQ,
    pdu(7, bytes(4)),
)
# Association requests that are odd, and served.
ODD = [pdu(1, body) for body in SERVED.values()]
PDU_LENGTHS = st.sampled_from([0, 1, 2, 5, 6, 7, 255, 65535, 65536, 2**20, 2**31, 2**32 - 1])


@st.composite
def mutated(draw):
    """One of the valid PDUs, or an odd request, with some bytes changed, cut off or doubled."""
    data = bytearray(draw(st.one_of(st.sampled_from(VALID), st.sampled_from(ODD))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.integers(0, 3))
        if how == 0:
            data[at] = draw(st.sampled_from([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF]))
        elif how == 1:
            data[at : at + 4] = struct.pack(">L", draw(PDU_LENGTHS))
        elif how == 2:
            del data[at : at + draw(st.integers(1, 20))]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 20))]
        if not data:
            break
    return bytes(data)


@st.composite
def values(draw):
    """A P-DATA-TF of values in any order, of any context."""
    parts = draw(
        st.lists(
            st.tuples(st.sampled_from([0, 1, 2, 3, 255]), st.integers(0, 7), st.binary(max_size=40)),
            max_size=4,
        )
    )
    return p_data(*(pdv(*part) for part in parts))


@st.composite
def headers(draw):
    """A PDU whose length is what it likes."""
    return struct.pack(">BxL", draw(st.integers(0, 255)), draw(PDU_LENGTHS)) + draw(st.binary(max_size=80))


nonsense = st.lists(st.one_of(st.binary(max_size=60), mutated(), values(), headers()), max_size=4).map(
    b"".join
)


@pytest.fixture(scope="module")
def server():
    with Running(limits={"associations": 8}, timeouts={"request": 2, "pdu": 2}) as running:
        yield running


def _attack(server, state, data):
    until(lambda: server.listener.active() < 8)
    with Parrot(server.port, timeout=5) as peer:
        with suppress(ConnectionError, BrokenPipeError):
            peer.send(STATES[state] + data)
            peer.socket.shutdown(1)
        with suppress(ConnectionError):
            while peer.socket.recv(65536):
                pass


def _is_well(server):
    until(lambda: not server.listener.active())
    with Parrot(server.port) as peer:
        peer.associate([(1, ECHO, (EXPLICIT,))])
        peer.send(p_data(pdv(1, 3, echo_rq())))
        assert b"\0\0" == peer.read_response()[0x0900]
        assert 0x06 == peer.release()
    until(lambda: not server.listener.active())
    assert [] == [one for one in server.store.received if not (one.finished or one.discarded)]
    assert [] == [one for one in server.store.received if one.finished and one.discarded]
    server.store.received.clear()
    server.ended.clear()


def _survives(server, state, examples):
    threads = threading.active_count()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(nonsense)
    def attack(data):
        _attack(server, state, data)

    attack()
    _is_well(server)
    assert threads >= threading.active_count()


@pytest.mark.parametrize("state", STATES)
def test_nonsense(server, state):
    _survives(server, state, 60)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("state", STATES)
def test_much_nonsense(server, state):
    _survives(server, state, 100_000 // len(STATES))


def test_nonsense_beyond_the_limit():
    with Running(limits={"associations": 1}) as server, Parrot(server.port) as held:
        held.associate()
        for data in (*VALID, b"", b"\x01", pdu(1, bytes(65536)), b"\x01\0\xff\xff\xff\xff", bytes(70000)):
            with Parrot(server.port, timeout=5) as peer:
                with suppress(OSError):  # it may have gone, and then there is nothing to shut
                    peer.send(data)
                    peer.socket.shutdown(1)
                with suppress(ConnectionError):
                    assert peer.read_pdu()[0] in (0x03, None)
        assert 0x06 == held.release()
        until(lambda: not server.listener.active())
        _is_well(server)
