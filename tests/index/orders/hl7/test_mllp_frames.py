"""Frames and the messages in them: no order stands under the patient of another message.

MLLP Release 1: a block is <VT> data <FS><CR>, and data hold neither. HL7 v2.5.1 Section 2.10.3: batches.
"""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Index
from index.orders.hl7 import mllp
from index.orders.hl7.faults import BadMessage
from index.orders.hl7.message import Message, messages
from index.orders.hl7.requests import requests
from support.hl7 import END, START, Sender, adt, message, msh, orm, pid, verdict

Told = Callable[..., list[str]]


def order(letter: str, control: str = "NW") -> bytes:
    """Return an order whose numbers and patient have the same letter."""
    numbers = {n: f"{n[0].upper()}{letter}" for n in ("placer", "filler", "accession", "procedure")}
    return orm(control, patient=pid(f"P{letter}", f"Name^{letter}"), **numbers)


def worklist(index: Index) -> set[tuple[str, str]]:
    return {(o.attributes["PatientID"], o.attributes["AccessionNumber"]) for o in index.orders.listed()}


A, B = order("A"), order("B")
HEADER = A[: A.index(b"PID")]


class Chunks:
    """A connection that gives these chunks, each by one recv, and ends then, or falls silent."""

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self._chunks = [chunk for chunk in chunks if chunk]
        self._ends = ends

    def settimeout(self, seconds: float) -> None:
        pass

    def recv(self, _: int) -> bytes:
        if not self._chunks and not self._ends:
            raise TimeoutError
        return self._chunks.pop(0) if self._chunks else b""


class Slow(Chunks):
    """A connection that gives a chunk after so many seconds of a clock of its own, and falls silent then."""

    def __init__(self, seconds: float, *chunks: bytes) -> None:
        super().__init__(*chunks, ends=False)
        self.now = 0.0
        self._seconds = seconds
        self._timeout = 0.0
        self._waited = 0.0

    def monotonic(self) -> float:
        return self.now

    def settimeout(self, seconds: float) -> None:
        self._timeout = seconds

    def recv(self, size: int) -> bytes:
        wait = self._seconds - self._waited if self._chunks else float("inf")
        if wait > self._timeout:
            self.now += self._timeout
            self._waited += self._timeout
            raise TimeoutError
        self.now += wait
        self._waited = 0.0
        return super().recv(size)


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float, *chunks: bytes) -> tuple[Slow, mllp.FrameReader]:
    """Return a connection and its reader, which takes no message of more than one second."""
    connection = Slow(seconds, *chunks)
    monkeypatch.setattr(mllp, "time", connection)
    return connection, mllp.FrameReader(connection, idle=5.0, message=1.0)


def read(*chunks: bytes, ends: bool = True) -> list[bytes]:
    """Return the frames of a connection."""
    cut = mllp.FrameReader(Chunks(*chunks, ends=ends))
    found = []
    try:
        while True:
            found.append(cut.next())
    except mllp.ConnectionEnded:
        return found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (A + B, [("PA", "AA"), ("PB", "AB")]),
        (A.rstrip(b"\r") + b"\r" + B, [("PA", "AA"), ("PB", "AB")]),
        (A + B + order("C"), [("PA", "AA"), ("PB", "AB"), ("PC", "AC")]),
        (A.replace(b"\r", b"\r\n") + B.replace(b"\r", b"\n"), [("PA", "AA"), ("PB", "AB")]),
        (b"FHS|^~\\&\rBHS|^~\\&\r" + A + B + b"BTS|2\rFTS|1\r", [("PA", "AA"), ("PB", "AB")]),
        (b"\xef\xbb\xbf" + A, [("PA", "AA")]),
        (A + b"\x1c" + B, [("PA", "AA"), ("PB", "AB")]),
    ],
)
def test_messages_in_one_frame_are_split_and_each_is_answered(
    tell: Told, still: Index, content: bytes, expected: list[tuple[str, str]]
) -> None:
    assert ["AA"] * len(expected) == tell(content)
    assert set(expected) == worklist(still)


@pytest.mark.parametrize("at", [9, 30, len(HEADER), len(HEADER) + 12, A.index(b"ORC") + 8, len(A) - 30])
def test_a_message_that_another_one_cuts_off_is_refused_and_the_other_taken(
    tell: Told, still: Index, at: int
) -> None:
    refused, taken = tell(A[:at] + B) if A[at - 1] != ord("\r") else ("AR", tell(A[:at] + B)[-1])
    assert (refused[:2], taken) == ("AR", "AA")
    assert {("PB", "AB")} == worklist(still)


@pytest.mark.parametrize("delimiters", [b"$%*!@", b"|^~\\#", b"#^~\\&"])
def test_a_message_with_other_delimiters_cuts_one_off_too(
    tell: Told, still: Index, delimiters: bytes
) -> None:
    other = B.translate(bytes.maketrans(b"|^~\\&", delimiters))
    for at in (30, A.index(b"ORC") + 8, len(A) - 30):
        refused, taken = tell(A[:at] + other)
        assert (refused[:2], taken) == ("AR", "AA")
    assert {("PB", "AB")} == worklist(still)


def test_initials_are_no_header(tell: Told, still: Index) -> None:
    said = A.replace(b"Roe^Richard", b"Roe^MSH").replace(b"|WARD1^^|", b"|MSH||||||MSH-^^^^-|")
    assert ["AA"] == tell(said)
    assert {("PA", "AA")} == worklist(still)


def test_a_frame_is_cut_in_one_pass() -> None:
    """A megabyte of headers takes as long as what it holds: copied at each of them, it took minutes."""
    count = 150_000
    for more in (b"x|^~\\&|", b"MSH|^~\\&|", b"MSH$%*!@$"):
        assert count + 1 == sum(1 for _ in messages(b"MSH|^~\\&|RIS" + more * count))


def test_a_start_within_a_frame_starts_anew() -> None:
    for at in (5, 40, len(HEADER), A.index(b"ORC") + 8, len(A) - 1):
        assert [B] == read(START + A[:at] + START + B + END)
    assert [B] == read(START, START, START + B + END)


def test_the_handler_alone_takes_no_two_messages_for_one(still: Index) -> None:
    for content in (A + B, A[:-40] + B, A[: len(HEADER) - 10] + B):
        answer, _ = still.orders._handler.handle(content)
        assert answer == "AR"
    assert set() == worklist(still)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([START + A + END + START + B + END], [A, B]),
        ([START + A + b"\x1c"], [A]),
        ([START + A + b"\x1c", START + B + END], [A, B]),
        ([START + A + b"\x1c\n" + START + B + b"\x1c\n"], [A, B]),
        ([b"noise" + START + A + END + b"\r\n\x00" + START + B + END], [A, B]),
        ([START + A[:50] + b"\x1c" + A[50:] + END], [A[:50] + b"\x1c" + A[50:]]),
        ([START + A], []),
    ],
)
def test_where_a_frame_ends(chunks: list[bytes], expected: list[bytes]) -> None:
    assert expected == read(*chunks)
    assert expected == read(*chunks, ends=False)
    assert expected == read(*(bytes((byte,)) for chunk in chunks for byte in chunk))


def test_a_message_that_is_too_large_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "MAX_MESSAGE", len(A))
    large = [START + A, b"x" * 10, b"y" * 10]
    frames = mllp.FrameReader(Chunks(*large, b"\x1c", b"\r" + START + B + END))
    with pytest.raises(mllp.TooLarge) as refused:
        frames.next()
    assert refused.value.head.startswith(A)
    assert B == frames.next()
    # What cuts it off is not answered for it: the connection is closed, and it comes again.
    with pytest.raises(mllp.ConnectionEnded, match="cut off by another one"):
        mllp.FrameReader(Chunks(*large, START + B + END)).next()
    with pytest.raises(mllp.ConnectionEnded, match="ended within a message that is too large"):
        mllp.FrameReader(Chunks(*large)).next()


@pytest.mark.parametrize("piece", [b"x", b"\x1c", b"x\x1c", b"\x1cx"])
@pytest.mark.parametrize("seconds", [0.3, 0.001])
def test_a_message_has_its_time_whatever_its_pieces_end_in(
    monkeypatch: pytest.MonkeyPatch, piece: bytes, seconds: float
) -> None:
    """The time is from the first byte of a message to its last: pieces in time do not make it longer."""
    connection, frames = slow(monkeypatch, seconds, START + A, *[piece] * 5000)
    with pytest.raises(mllp.ReadTimeout):
        frames.next()
    assert connection.now < 1.0 + 2 * seconds


@pytest.mark.parametrize("piece", [b"x", b"\x1c", b"x\x1c", b"\x1cx"])
@pytest.mark.parametrize("seconds", [0.3, 0.001])
def test_a_message_that_is_too_large_has_no_more_time(
    monkeypatch: pytest.MonkeyPatch, piece: bytes, seconds: float
) -> None:
    monkeypatch.setattr(mllp, "MAX_MESSAGE", 100)
    connection, frames = slow(monkeypatch, seconds, START + A, *[piece] * 5000)
    with pytest.raises(mllp.ReadTimeout):
        frames.next()
    assert connection.now < 1.0 + 2 * seconds


def test_a_message_that_ends_without_cr_in_time_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, frames = slow(monkeypatch, 0.4, START + A, b"\x1c")
    assert A == frames.next()
    assert connection.now == pytest.approx(0.8 + mllp.END_SECONDS)
    # Without the whole wait it may be the beginning of a message only.
    _, frames = slow(monkeypatch, 0.6, START + A[:60] + b"\x1c", A[60:] + b"\x1c")
    assert A[:60] == frames.next()
    _, frames = slow(monkeypatch, 0.2, START + A[:20], A[20:40], A[40:60], A[60:80], A[80:] + b"\x1c")
    with pytest.raises(mllp.ReadTimeout):
        frames.next()


@pytest.mark.parametrize("end", [b"\x1c", b"x\x1c", b"\x1c\x1c", END, b"\x1c\n"])
@pytest.mark.parametrize("closes", [True, False])
def test_a_message_that_is_too_large_is_answered_however_it_ends(
    monkeypatch: pytest.MonkeyPatch, end: bytes, *, closes: bool
) -> None:
    monkeypatch.setattr(mllp, "MAX_MESSAGE", len(A) - 1)
    for chunks in ([START + A, end], [START + A, b"more", *(bytes((byte,)) for byte in end)]):
        frames = mllp.FrameReader(Chunks(*chunks, ends=not closes))
        with pytest.raises(mllp.TooLarge) as refused:
            frames.next()
        assert refused.value.head.startswith(A[:-1])
        with pytest.raises(mllp.ConnectionEnded):
            frames.next()


def test_the_message_after_one_that_is_too_large_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "MAX_MESSAGE", len(A) - 1)
    frames = mllp.FrameReader(Chunks(START + A, b"\x1c", START + b"MSH|" + END))
    with pytest.raises(mllp.TooLarge):
        frames.next()
    assert b"MSH|" == frames.next()


def test_a_frame_that_ends_without_cr_is_answered_while_its_sender_waits(ris: Sender) -> None:
    ris.socket.sendall(START + A + END[:1])
    assert "AA" == verdict(ris.answer())
    assert "AA" == verdict(ris.send(B))


def test_each_message_of_a_frame_has_an_answer_of_its_own(ris: Sender) -> None:
    first, second = A.replace(b"|M1|", b"|C1|"), B.replace(b"|M1|", b"|C2|")
    ris.socket.sendall(START + first + second + END)
    assert [["MSA", "AA", "C1"], ["MSA", "AA", "C2"]] == [ris.answer()[1], ris.answer()[1]]


def test_a_batch_that_cuts_a_message_off_is_taken_without_it(tell: Told, still: Index) -> None:
    refused, taken = tell(A[:-20] + b"BHS|^~\\&|RIS\r" + B)
    assert (refused[:2], taken) == ("AR", "AA")
    assert {("PB", "AB")} == worklist(still)


def test_an_empty_batch_is_answered(tell: Told) -> None:
    (answer,) = tell(b"BHS|^~\\&\rBTS|0\r")
    assert answer.startswith("AR MSH")


TWO = [pid("PA"), "ORC|NW|LA", "OBR|1|LA||C^c^L", pid("PB"), "ORC|NW|LB", "OBR|1|LB||C^c^L"]


@pytest.mark.parametrize("kind", ["ORM^O01", "OMI^O23", "OMG^O19", "ADT^A08", "ADT^A31"])
def test_a_second_patient_is_refused(tell: Told, still: Index, kind: str) -> None:
    assert ["AE PID: the message type has one patient"] == tell(message(msh(kind), *TWO))
    assert set() == worklist(still)


@pytest.mark.parametrize("name", ["pid", "Pid", " PID", "\x00PID", "\ufeffPID", "\tPID "])
def test_a_second_patient_is_refused_however_its_segment_is_written(
    tell: Told, still: Index, name: str
) -> None:
    segments = [*TWO[:3], TWO[3].replace("PID", name), *TWO[4:]]
    assert ["AE PID: the message type has one patient"] == tell(message(msh("ORM^O01"), *segments))
    assert set() == worklist(still)


def test_a_merge_has_as_many_patients_as_it_merges(tell: Told) -> None:
    assert ["AA"] == tell(adt("A40", pid("N1"), "MRG|O1", pid("N2"), "MRG|O2"))
    for segments in ([pid("N1"), pid("N2"), "MRG|O2"], [pid("N1"), "MRG|O1", pid("N2")]):
        (answer,) = tell(adt("A40", *segments))
        assert answer.startswith("AE MRG: the segment is missing")


LETTERS = "ABCD"
_PIECES = st.one_of(
    st.sampled_from(LETTERS).map(order),
    st.sampled_from(LETTERS).map(lambda letter: order(letter).replace(b"PID|", b"ZID|")),
    st.tuples(st.sampled_from(LETTERS), st.integers(0, 400)).map(lambda one: order(one[0])[: one[1]]),
    st.sampled_from([START, END, b"\x1c", b"\r", b"\n", b"MSH|^~\\&|", b"BHS|^~\\&\r", b"\xef\xbb\xbf"]),
    st.binary(max_size=6).map(lambda noise: noise.translate(None, LETTERS.encode())),
)


def check_patients(pieces: list[bytes]) -> None:
    """Whatever order is read from the stream, its numbers are those of its patient."""
    stream = b"".join(pieces)
    for frame in read(stream):
        for content in messages(frame):
            try:
                told = requests(Message(content), {})
            except BadMessage:
                continue
            for one in told:
                numbers = (one.placer, one.filler, one.accession, one.procedure)
                whole = {number[1] for number in numbers if re.fullmatch(f"[PFAR][{LETTERS}]", number)}
                assert {one.patient["PatientID"][1:2]} >= whole


# A stream is made of starts and whole messages, as connections are that lose their ends.
_STREAMS = st.lists(st.tuples(st.sampled_from([b"", START]), _PIECES).map(b"".join), max_size=6)


@given(_STREAMS)
@settings(max_examples=300, deadline=None)
def test_no_order_carries_the_patient_of_another_message(pieces: list[bytes]) -> None:
    check_patients([START, *pieces, END])


@pytest.mark.long
@pytest.mark.timeout(7200)
@given(_STREAMS)
@settings(max_examples=100_000, deadline=None)
def test_no_order_carries_the_patient_of_another_message_at_length(pieces: list[bytes]) -> None:
    check_patients([START, *pieces, END])


@given(st.lists(st.binary(max_size=40) | st.sampled_from([START, END, b"\x1c", A]), max_size=12))
@settings(max_examples=300, deadline=None)
def test_frames_hold_no_start_and_end_where_they_end(chunks: list[bytes]) -> None:
    for frame in read(*chunks):
        assert START not in frame
        assert END not in frame


@pytest.mark.long
@pytest.mark.timeout(7200)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([START, END, b"\x1c", A]), max_size=12))
@settings(max_examples=100_000, deadline=None)
def test_frames_at_length(chunks: list[bytes]) -> None:
    for frame in read(*chunks):
        assert START not in frame
        assert END not in frame
