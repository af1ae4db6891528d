"""What one message may cost: limits, a lock held for one order, parsers that raise only their own errors."""

import ipaddress
import socket
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Index
from index.orders.hl7 import adt, mllp
from index.orders.hl7.acknowledging import acknowledge
from index.orders.hl7.faults import BadMessage
from index.orders.hl7.message import (
    MAX_COMPONENTS,
    MAX_FIELDS,
    MAX_REPETITIONS,
    MAX_SEGMENT,
    MAX_SEGMENTS,
    Message,
    messages,
)
from index.orders.hl7.requests import MAX_GROUPS, requests
from support.hl7 import END, START, message, msh, orm, pid
from support.hl7 import adt as adt_message

Told = Callable[..., list[str]]
GROUP = "ORC|NW|P{0}|F{0}", "OBR|1|P{0}|F{0}|C^c^L"


def groups(count: int) -> bytes:
    return message(msh("ORM^O01"), pid(), *(line.format(number) for number in range(count) for line in GROUP))


def with_pid(field: str) -> bytes:
    return orm(patient=f"PID|1||P1^^^^MR||Doe^J|{field}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (groups(MAX_GROUPS + 1), f"AR ORC: more than {MAX_GROUPS} orders"),
        (with_pid("^" * MAX_COMPONENTS), f"AR PID: more than {MAX_COMPONENTS} components"),
        (with_pid("&" * MAX_COMPONENTS), f"AR PID: more than {MAX_COMPONENTS} subcomponents"),
        (with_pid("~" * MAX_REPETITIONS), f"AR PID: more than {MAX_REPETITIONS} repetitions"),
        (with_pid("|" * MAX_FIELDS), f"AR PID: more than {MAX_FIELDS} fields"),
        (with_pid("x" * MAX_SEGMENT), f"AR PID: more than {MAX_SEGMENT} characters"),
        (with_pid("^" * 1_000_000), f"AR PID: more than {MAX_SEGMENT} characters"),
        (orm() + b"NTE|1\r" * MAX_SEGMENTS, f"AR MSH: more than {MAX_SEGMENTS} segments"),
        (adt_message("A40", *[pid(), "MRG|X"] * (MAX_GROUPS + 1)), f"AR MRG: more than {MAX_GROUPS} merges"),
    ],
)
def test_beyond_a_limit_a_message_is_rejected(
    tell: Told, still: Index, content: bytes, expected: str
) -> None:
    assert [expected] == tell(content)
    assert [] == still.orders.listed()


def test_within_the_limits_it_is_taken(tell: Told, still: Index) -> None:
    """Reports and documents are long, identifiers are many."""
    identifiers = "~".join(f"P{number}^^^A{number}^PI" for number in range(100))
    content = orm(patient=f"PID|1||{identifiers}||Doe^J") + b"OBX|1|ED|||" + b"^QUJD~" * 100_000 + b"\r"
    assert ["AA"] == tell(content + b"NTE|1||text\r" * 5_000)
    assert ["P0"] == [order.attributes["PatientID"] for order in still.orders.listed()]
    assert ["AA"] == tell(groups(30))
    assert 31 == len(still.orders.listed())


@pytest.mark.parametrize(
    "content",
    [
        with_pid("^" * 1_000_000),
        with_pid("A~" * 500_000),
        groups(20_000),
        orm() + b"OBX|1|" + b"^" * 1_000_000,
    ],
)
def test_a_megabyte_of_delimiters_takes_a_few_of_memory(content: bytes) -> None:
    tracemalloc.start()
    try:
        for one in messages(content):
            requests(Message(one), {})
    except BadMessage:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 12 * len(content)  # it was 400 times its length


def test_other_feeds_get_their_turn_between_two_orders(still: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    handler, taken, other = still.orders._handler, [], []
    put_found = still.orders.store.put_found

    def put(find: Callable[[], Any]) -> Any:
        row = put_found(find)
        taken.append(find()[0].patient["PatientID"])
        if len(taken) == 1:
            feed = threading.Thread(target=handler.handle, args=(orm(patient=pid("P2")),))
            feed.start()
            other.append(feed)
        return row

    monkeypatch.setattr(still.orders.store, "put_found", put)
    monkeypatch.setattr("index.orders.hl7.handler._TURN_SECONDS", 0.05)
    assert "AA" == handler.handle(groups(20))[0]
    other[0].join(60)
    assert "P2" in taken[:-1]


def test_a_message_is_taken_apart_outside_the_lock(still: Index) -> None:
    handler = still.orders._handler
    with still._database._write_lock:
        refused = handler.handle(groups(MAX_GROUPS + 1))
    assert "AR" == refused[0]


def test_the_listener_outlives_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [ipaddress.ip_network("127.0.0.0/8")]
    listener = mllp.Listener("127.0.0.1", 0, networks, lambda _: ("AA", b"MSA|AA"))
    listener.start()
    start = threading.Thread.start

    def fail(*_: Any) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    def ask() -> bytes:
        with socket.create_connection(listener.address, 60) as connection:
            connection.sendall(START + b"MSH" + END)
            try:
                return connection.recv(100)
            except OSError:
                return b""

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert [b"", START + b"MSA|AA" + END] == [ask(), ask()]
    listener.stop()
    assert {} == listener._connections


def test_an_answer_holds_no_control_characters(still: Index) -> None:
    content = orm().replace(b"|M1|", b"|C\\X0D\\MSA\\F\\AA\\X1C0D0B\\x|")
    _, answer = still.orders._handler.handle(content)
    assert [b"MSH", b"MSA"] == [line[:3] for line in answer.split(b"\r") if line]
    assert b"|C\\.br\\MSA\\F\\AA\\X1C\\\\.br\\\\X0B\\x\r" in answer


_SIGNS = '|^~\\&\r\n\x0b\x1c"-.#0129ABMPRSXÄ'
_TEXTS = st.text(st.sampled_from(_SIGNS), max_size=30)
_NAMES = ["MSH|^~\\&", "PID", "ORC", "OBR", "IPC", "ZDS", "TQ1", "MRG", "PV1", "EVN", "MSH^~|\\&"]
_VALUES = ["ORM^O01", "ADT^A40", "ADT^A08", "NW", "CA", "SC", "2.5.1", '""']
_LINES = st.tuples(
    st.sampled_from([*_NAMES, ""]), st.lists(_TEXTS | st.sampled_from(_VALUES), max_size=24)
).map(lambda line: "|".join([line[0], *line[1]]))


def _overwritten(cut: tuple[bytes, int, bytes]) -> bytes:
    content, at, noise = cut
    return content[:at] + noise + content[at + len(noise) :]


_ORDERS = st.tuples(
    st.sampled_from([orm(), orm("CA"), orm("XO")]), st.integers(0, 420), st.binary(max_size=8)
).map(_overwritten)
_CONTENTS = st.one_of(
    st.binary(max_size=80),
    _ORDERS,
    st.lists(_LINES, max_size=8).map(lambda lines: "\r".join([msh("ORM^O01"), *lines]).encode()),
    st.lists(_LINES, max_size=8).map(lambda lines: "\r".join(lines).encode("latin-1")),
)


def check_parsers(content: bytes) -> None:
    """Whatever comes, only BadMessage is raised, and an answer is made that is one message."""
    for one in messages(content):
        message_: Message | None = None
        fault: BadMessage | None = None
        try:
            message_ = Message(one)
        except BadMessage as error:
            fault = error
        for parse in (requests, adt.update_of, adt.unlinked) if message_ else ():
            try:
                parse(message_, {}, "HOSP")
            except BadMessage as error:
                fault = error
        try:
            _ = message_ and adt.merges(message_)
        except BadMessage as error:
            fault = error
        _, answer = acknowledge(message_, fault)
        assert answer.startswith(b"MSH|^~\\&|")
        assert not set(answer) & {0x0B, 0x1C, 0x0A}
        assert answer.count(b"\rMSA|") == 1


@given(_CONTENTS)
@settings(max_examples=400, deadline=None)
def test_parsers_raise_only_their_own_errors(content: bytes) -> None:
    check_parsers(content)


@pytest.mark.long
@pytest.mark.timeout(7200)
@given(_CONTENTS)
@settings(max_examples=100_000, deadline=None)
def test_parsers_raise_only_their_own_errors_at_length(content: bytes) -> None:
    check_parsers(content)


def test_what_a_database_holds_of_any_message_is_an_answer(still: Index) -> None:
    """The handler itself, for a few hundred of these: no internal error (AE with code 207)."""

    @given(_CONTENTS)
    @settings(max_examples=150, deadline=None)
    def check(content: bytes) -> None:
        for one in messages(content):
            answer, acknowledgement = still.orders._handler.handle(one)
            assert answer in ("AA", "AE", "AR")
            assert b"internal error" not in acknowledgement

    check()
