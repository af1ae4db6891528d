"""Senders that end in the middle of an object, or before they have seen the answer."""

import random

from support.daemon import Daemon, eventually
from support.load import SUCCESS, indexed, leftovers, whole
from support.sender import CT_SIZE, SMALL_SIZE, Sender, send, template

A_ABORT_LENGTH = 10
ABORTS = 100


def test_a_hundred_aborts_leave_nothing(daemon: Daemon) -> None:
    address = (daemon.host, daemon.port)
    for number in range(ABORTS):
        sender = Sender(address)
        message = sender.message(template((SMALL_SIZE, CT_SIZE)[number % 2]))
        message.become(number)
        # More is missing than the A-ABORT has bytes: as data they would complete the message.
        sender.socket.sendall(message.wire[: random.randint(1, len(message.wire) - A_ABORT_LENGTH - 1)])
        (sender.abort, sender.close)[number // 2 % 2]()
    assert eventually(lambda: ABORTS == len(daemon.named("association")))
    assert ({}, []) == (indexed(daemon.data), leftovers(daemon.data))
    assert not list((daemon.data / "objects").rglob("*.dcm"))
    send(address, template(), range(1))
    assert eventually(lambda: 1 == len(indexed(daemon.data)))


def test_an_instance_is_sent_again_when_its_answer_was_lost(daemon: Daemon) -> None:
    source = template()
    for nth in range(1, 4):
        sender = Sender((daemon.host, daemon.port))
        message = sender.message(source)
        uid = message.become(7)
        sender.socket.sendall(message.wire)
        assert eventually(lambda: nth == len(daemon.named("store")))  # noqa: B023  called at once
        sender.close()
    statuses = []
    send((daemon.host, daemon.port), source, [7], lambda _, status: statuses.append(status))
    assert [SUCCESS] == statuses
    ((known, path),) = indexed(daemon.data).items()
    assert uid == known
    assert whole(daemon.data / path, uid)
    assert [] == leftovers(daemon.data)
