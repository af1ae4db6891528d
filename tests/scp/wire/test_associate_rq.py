"""Association requests as the field sends them are served (PS3.8 Section 9.3.2, PS3.7 Section D.3.3).

What DCMTK (dulparse.cc) and Orthanc, which is built on it, read without a word is read here too.
"""

import logging
import struct
from contextlib import suppress

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.presentation import negotiate_as_acceptor

from scp.association.contexts import supported_contexts
from scp.settings.sections import Peer
from scp.settings.users import hash_passcode
from scp.wire.associate_rq import DEFAULT_MAXIMUM, MAX_CONTEXTS, UnreadableRequest, parse_request
from scp.wire.pdus import ASSOCIATE_LENGTH, PDU_HEADER
from support.peer import (
    APPLICATION_CONTEXT,
    CT,
    ECHO,
    EXPLICIT,
    IMPLICIT,
    Parrot,
    Running,
    accepted,
    command,
    echo_rq,
    elements,
    item,
    p_data,
    pdu,
    pdv,
    store_message,
    ui,
    until,
    us,
)

MR = "1.2.840.10008.5.1.4.1.1.4"
WORKLIST = "1.2.840.10008.5.1.4.31"
MAXIMUM = item(0x51, struct.pack(">L", 16384))
IMPLEMENTATION = item(0x52, b"1.2.3.4")


def proposal(number, abstract, *syntaxes):
    """Return a presentation context item; syntaxes as text or bytes."""
    encoded = [one.encode() if isinstance(one, str) else one for one in (abstract, *syntaxes)]
    content = item(0x30, encoded[0]) + b"".join(item(0x40, one) for one in encoded[1:])
    return item(0x20, bytes((number, 0, 0, 0)) + content)


def role(uid, scu, scp):
    return item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((scu, scp)))


def identity(kind, primary=b"", secondary=b"", answer=0):
    fields = b"".join(struct.pack(">H", len(one)) + one for one in (primary, secondary))
    return item(0x58, bytes((kind, answer)) + fields)


NAME = APPLICATION_CONTEXT.encode()
GOOD = proposal(1, CT, EXPLICIT, IMPLICIT)


def request(
    contexts=GOOD,
    user=MAXIMUM + IMPLEMENTATION,
    *,
    called=b"ANY",
    calling=b"RAW",
    version=1,
    name=NAME,
    tail=b"",
):
    """Return the body of an A-ASSOCIATE-RQ."""
    body = struct.pack(">H2x16s16s32x", version, called.ljust(16), calling.ljust(16))
    return body + item(0x10, name) + contexts + item(0x50, user) + tail


# Each is served: context 1 is accepted with Explicit VR Little Endian, and an object is kept.
SERVED = {
    "as the standard has it": request(),
    "calling title blank": request(calling=b" " * 16),
    "called title blank": request(called=b" " * 16),
    "called title padded with NUL": request(called=b"LWPACS".ljust(16, b"\0")),
    "calling title padded with NUL": request(calling=b"CT1".ljust(16, b"\0")),
    "titles of NUL": request(called=bytes(16), calling=bytes(16)),
    "NUL and rubbish behind the title": request(calling=b"CT1\0\xff\x80junk"),
    "latin-1 title": request(calling="RÖNTGEN".encode("latin-1")),
    "UTF-8 title": request(calling="RÖNTGEN".encode()),
    "backslash in a title": request(calling=b"CT\\1", called=b"\\"),
    "control characters in a title": request(calling=b"\x1b[31mCT\n"),
    "another version as well": request(version=3),
    "all versions": request(version=0xFFFF),
    "application context padded": request(name=NAME + b"\0"),
    "application context of another kind": request(name=b"1.2.840.10008.3.1.1.2"),
    "application context that is no UID": request(name="ä".encode() * 60),
    "no application context": request().replace(item(0x10, NAME), b""),
    "no maximum length": request(user=IMPLEMENTATION),
    "a short maximum length": request(user=item(0x51, b"\0\1")),
    "a long maximum length": request(user=item(0x51, b"\0\0\x40\0\0\0")),
    "a maximum length of nothing": request(user=item(0x51, b"")),
    **{
        f"maximum length {n}": request(user=item(0x51, struct.pack(">L", n)))
        for n in (0, 1, 5, 6, 7, 8, 20, 2**32 - 1)
    },
    "nothing in the user information": request(user=b""),
    "no user information": request()[: -len(item(0x50, MAXIMUM + IMPLEMENTATION))],
    "user information in two items": request(tail=item(0x50, item(0x5F, b"x"))),
    "user information first": request(contexts=b"", tail=GOOD),
    "implementation UID too long": request(user=MAXIMUM + item(0x52, b"1." * 50)),
    "implementation UID that is none": request(user=MAXIMUM + item(0x52, b"\xff.abc")),
    "version name too long": request(user=MAXIMUM + item(0x55, b"VERSION_1234567890AB")),
    "version name beyond ASCII": request(user=MAXIMUM + item(0x55, b"Gr\xf6")),
    "version name padded with NUL": request(user=MAXIMUM + item(0x55, b"ABC\0\0\0")),
    "version name of backslashes": request(user=MAXIMUM + item(0x55, b"a\\b")),
    "unknown user item": request(user=MAXIMUM + item(0x5F, b"hello")),
    "unknown item": request(tail=item(0x60, b"xyz")),
    "unknown item of nothing": request(tail=item(0xFF, b"")),
    "unknown item in a context": request(item(0x20, b"\1\0\0\0" + item(0x77, b"?") + GOOD[8:])),
    "another maximum length": request(user=MAXIMUM + item(0x51, b"\0\0\0\x09")),
    "NULs behind the items": request(tail=bytes(9)),
    "a line end behind the items": request(tail=b"\r\n"),
    "the beginning of an item behind the items": request(tail=b"\x50\0\xff\xff"),
    "user information longer than the request": request()[:-1],
    "asynchronous operations without numbers": request(user=MAXIMUM + item(0x53, b"\1")),
    "role of an unknown number": request(user=MAXIMUM + role(CT, 2, 255)),
    "no role at all": request(user=MAXIMUM + role(CT, 0, 0)),
    "role without its second half": request(user=MAXIMUM + role(CT, 1, 1)[:-1] + b""),
    "role of nothing": request(user=MAXIMUM + item(0x54, b"")),
    "role whose UID is longer than the item": request(user=MAXIMUM + item(0x54, b"\xff\xff1.2")),
    "role of a UID too long": request(user=MAXIMUM + role("1." * 50, 1, 0)),
    "role twice": request(user=MAXIMUM + role(CT, 1, 0) + role(CT, 0, 1)),
    "600 roles": request(user=MAXIMUM + item(0x54, b"") * 600),
    "extended negotiation of nothing": request(user=MAXIMUM + item(0x56, b"")),
    "common extended negotiation of rubbish": request(user=MAXIMUM + item(0x57, b"\xff\xff\xff\xff")),
    "identity of type 6": request(user=MAXIMUM + identity(6, b"zz")),
    "identity of type 0": request(user=MAXIMUM + identity(0)),
    "identity without fields": request(user=MAXIMUM + item(0x58, b"\1\1")),
    "identity that wants an answer": request(user=MAXIMUM + identity(1, b"anna", answer=255)),
    "identity with a long field": request(user=MAXIMUM + identity(4, b"<saml/>" * 5000)),
    "identity longer than its item": request(user=MAXIMUM + item(0x58, b"\1\0\xff\xffanna")),
    "an answer to an identity": request(user=MAXIMUM + item(0x59, b"\0\0")),
    "a context without transfer syntax": request(GOOD + proposal(3, ECHO)),
    "a context without abstract syntax": request(GOOD + item(0x20, b"\3\0\0\0" + item(0x40, b"1.2"))),
    "a context of nothing": request(GOOD + item(0x20, b"")),
    "a context of an id": request(GOOD + item(0x20, b"\3")),
    "an abstract syntax too long": request(GOOD + proposal(3, "1." * 35, EXPLICIT)),
    "an abstract syntax beyond ASCII": request(GOOD + proposal(3, b"1.2\xff", EXPLICIT)),
    "a transfer syntax too long": request(GOOD + proposal(3, MR, "1." * 35)),
    "200 transfer syntaxes": request(GOOD + proposal(3, MR, *("1.2",) * 200)),
    "bad transfer syntaxes before the good": request(proposal(1, CT, b"", b"\xff", "1." * 40, EXPLICIT)),
    "transfer syntax padded": request(proposal(1, CT, EXPLICIT + "\0")),
    "abstract syntax padded with blanks": request(proposal(1, f" {CT} ", EXPLICIT + "  ")),
    "NUL and rubbish behind a UID": request(proposal(1, CT + "\0\1", EXPLICIT + "\0x")),
    "a context id twice": request(GOOD + proposal(1, MR, IMPLICIT)),
    "an even context id beside": request(GOOD + proposal(2, MR, EXPLICIT) + proposal(0, ECHO, EXPLICIT)),
    "every context id": request(GOOD + b"".join(proposal(n, MR, EXPLICIT) for n in range(256) if n != 1)),
    "a context with the item type of an answer": request(b"\x21" + GOOD[1:]),
    "150 contexts of one id": request(GOOD * 150),
}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """The daemon does not hear what pynetdicom logs of each bad value; kept for a report it fills memory."""
    caplog.set_level(logging.CRITICAL + 1, "pynetdicom")


@pytest.fixture
def server():
    with Running() as running:
        yield running


@pytest.mark.parametrize("name", SERVED)
def test_a_request_that_can_be_read_is_served(server, name):
    with Parrot(server.port) as peer:
        peer.send(pdu(0x01, SERVED[name]))
        kind, answer = peer.read_pdu()
        peer.send(store_message("1.2.3.4", b"data"))
        encoded, last = b"", 0
        while not last:
            _, content = peer.read_pdu()
            encoded, last = encoded + content[6:], content[5] & 2
        released = peer.release()

    assert (0x02, (0, EXPLICIT)) == (kind, accepted(answer)[1])
    assert b"\0\0" == elements(encoded)[0x0900]
    assert 0x06 == released
    # PS3.8 Table 9-17: titles and reserved bytes come back as they were sent.
    assert SERVED[name][4:68] == answer[4:68]


@pytest.mark.parametrize(
    ("context", "result"),
    [
        (proposal(3, ECHO), 4),
        (proposal(3, MR, "1." * 40), 4),
        (proposal(3, "", EXPLICIT), 3),
        (proposal(3, "1." * 40, EXPLICIT), 3),
        (item(0x20, b"\3"), 3),
        # Half a UID is another UID: Implicit VR of Explicit VR.
        (item(0x20, b"\3\0\0\0" + item(0x30, MR.encode()) + item(0x40, EXPLICIT.encode())[:-2]), 4),
    ],
)
def test_a_context_that_cannot_be_read_is_rejected_by_itself(server, context, result):
    """PS3.8 Table 9-18: 3 is abstract-syntax-not-supported, 4 transfer-syntaxes-not-supported."""
    with Parrot(server.port) as peer:
        peer.send(pdu(0x01, request(GOOD + context)))
        _, answer = peer.read_pdu()

    assert {1: 0, 3: result} == {number: one for number, (one, _) in accepted(answer).items()}


def test_even_context_ids_are_served_beside_odd_ones(server):
    contexts = proposal(2, CT, EXPLICIT) + proposal(1, MR, IMPLICIT) + proposal(0, ECHO, IMPLICIT)
    with Parrot(server.port) as peer:
        peer.send(pdu(0x01, request(contexts)))
        _, answer = peer.read_pdu()
        peer.send(store_message("1.2.3.4", b"data", context=2))
        _, stored = peer.read_pdu()
        peer.send(p_data(pdv(0, 3, echo_rq())))
        _, echoed = peer.read_pdu()
        peer.send(p_data(pdv(3, 3, echo_rq())))
        kind, _ = peer.read_pdu()

    assert {2: (0, EXPLICIT), 1: (0, IMPLICIT), 0: (0, IMPLICIT)} == accepted(answer)
    assert (2, b"\0\0") == (stored[4], elements(stored[6:])[0x0900])
    assert (0, b"\0\0") == (echoed[4], elements(echoed[6:])[0x0900])
    assert 0x07 == kind  # by which pynetdicom knows one of them, but nobody proposed it


def test_an_even_context_id_reaches_pynetdicoms_services():
    def find(_event):
        match = Dataset()
        match.PatientName = "A^B"
        yield 0xFF00, match

    query = command(ui(2, WORKLIST), us(0x0100, 0x0020), us(0x0110, 5), us(0x0700, 0), us(0x0800, 1))
    with (
        Running(
            services={WORKLIST: "worklist"}, unknown_callers="all", handlers=[(evt.EVT_C_FIND, find)]
        ) as server,
        Parrot(server.port) as peer,
    ):
        peer.send(pdu(0x01, request(proposal(4, WORKLIST, IMPLICIT))))
        peer.read_pdu()
        peer.send(p_data(pdv(4, 3, query), pdv(4, 2, b"")))
        answers = [peer.read_pdu()[1] for _ in range(3)]

    assert [4, 4, 4] == [answer[4] for answer in answers]


def test_without_a_maximum_length_answers_have_the_usual_one():
    """PS3.8 Section D.1 says nothing of its absence. It ended in a TypeError in place of the answer."""
    name = "A" * 3 * DEFAULT_MAXIMUM

    def find(_event):
        match = Dataset()
        match.PatientName = name
        yield 0xFF00, match

    query = command(ui(2, WORKLIST), us(0x0100, 0x0020), us(0x0110, 5), us(0x0700, 0), us(0x0800, 1))
    with (
        Running(
            services={WORKLIST: "worklist"}, unknown_callers="all", handlers=[(evt.EVT_C_FIND, find)]
        ) as server,
        Parrot(server.port) as peer,
    ):
        peer.send(pdu(0x01, request(proposal(1, WORKLIST, IMPLICIT), user=IMPLEMENTATION)))
        peer.read_pdu()
        peer.send(p_data(pdv(1, 3, query), pdv(1, 2, b"")))
        lengths, controls = [], []
        while controls.count(3) < 2:
            _, content = peer.read_pdu()
            lengths.append(len(content))
            controls.append(content[5])

    assert [DEFAULT_MAXIMUM] * 3 == sorted(lengths)[-3:]


def test_a_large_request_is_read(server):
    """128 presentation contexts with 60 transfer syntaxes each, as who knows them all proposes."""
    syntaxes = [f"1.2.840.10008.1.2.4.{number}" for number in range(50, 109)]
    contexts = b"".join(proposal(number, CT, EXPLICIT, *syntaxes) for number in range(1, 256, 2))
    assert 150_000 < len(request(contexts)) <= ASSOCIATE_LENGTH
    with Parrot(server.port) as peer:
        peer.send(pdu(0x01, request(contexts)))
        _, answer = peer.read_pdu()

    assert MAX_CONTEXTS == [result for result, _ in accepted(answer).values()].count(0)


# --- who is it ---


@pytest.mark.parametrize("title", [b"CT1", b" CT1", b"CT1\0", b"CT1".ljust(16, b"\0"), b"CT1\0rest"])
def test_a_padded_title_is_the_peers(title):
    with (
        Running(unknown_callers="reject", called_aets=("US",), peers=[Peer(aet="CT1")]) as server,
        Parrot(server.port) as peer,
    ):
        peer.send(pdu(0x01, request(calling=title, called=b"US".ljust(16, b"\0"))))

        assert 0x02 == peer.read_pdu()[0]


@pytest.mark.parametrize(
    ("changes", "rejected"),
    [({"called_aets": ("US",)}, b"\0\1\1\7"), ({"unknown_callers": "reject"}, b"\0\1\1\3")],
)
def test_a_blank_title_is_no_peers(changes, rejected):
    """PS3.8 Table 9-21: a title that is not recognized."""
    with Running(**changes) as server, Parrot(server.port) as peer:
        peer.send(pdu(0x01, request(calling=bytes(16), called=b" " * 16)))

        assert (0x03, rejected) == peer.read_pdu()


@pytest.mark.parametrize(
    "item_of_user", [identity(6, b"anna"), identity(0), item(0x58, b"\1\0\xff\xffanna"), item(0x58, b"")]
)
def test_an_identity_that_cannot_be_verified_is_rejected(tmp_path, item_of_user):
    """PS3.7 Section D.3.3.7: left out it would be as if the caller had named nobody, which is allowed."""
    users = tmp_path / "users"
    users.write_text(f"anna:{hash_passcode('x')}\n")
    with Running(users=users) as server, Parrot(server.port) as peer:
        peer.send(pdu(0x01, request(user=MAXIMUM + item_of_user)))

        assert (0x03, b"\0\1\2\1") == peer.read_pdu()


def test_what_is_odd_is_logged_with_titles():
    with structlog.testing.capture_logs() as events:
        with Running() as server, Parrot(server.port) as peer:
            peer.send(pdu(0x01, request(calling=b"CT1\0", tail=item(0x60, b"") * 50 + item(0x61, b""))))
            peer.read_pdu()
        until(lambda: not server.listener.active())

    [event] = [event for event in events if event["event"] == "association_request_odd"]
    assert ("CT1", "ANY", "info") == (event["calling_aet"], event["called_aet"], event["log_level"])
    assert ("unknown item 60", "unknown item 61") == event["oddities"][:2]
    assert 3 == len(event["oddities"])


def test_a_request_as_it_should_be_is_not_odd():
    assert (
        ()
        == parse_request(
            request(calling=b"  CT1", user=MAXIMUM + IMPLEMENTATION + item(0x55, b"V1"))
        ).oddities
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (request()[:68] + b"\x77\0\xff\xffrubbish", "no presentation context before an item longer"),
        (request()[:68] + b"\x50\0\xff\xff", "no presentation context before an item longer"),
    ],
    ids=range(2),
)
def test_a_request_that_cannot_be_read_is_aborted_and_its_caller_logged(body, why):
    with structlog.testing.capture_logs() as events, Running() as server, Parrot(server.port) as peer:
        peer.send(pdu(0x01, body))
        kind, _ = peer.read_pdu()
        until(lambda: not server.listener.active())

    [event] = [event for event in events if event["event"] == "association"]
    assert 0x07 == kind
    assert ("aborted", "RAW", "ANY") == tuple(event[k] for k in ("outcome", "calling_aet", "called_aet"))
    assert why in event["reason"]


def test_a_version_without_ours_is_rejected_and_its_caller_logged():
    """PS3.8 Section 9.3.2: bit 0 is tested. Table 9-21: protocol-version-not-supported."""
    with structlog.testing.capture_logs() as events, Running() as server, Parrot(server.port) as peer:
        peer.send(pdu(0x01, request(version=6)))
        answer = peer.read_pdu()
        until(lambda: not server.listener.active())

    [event] = [event for event in events if event["event"] == "association"]
    assert (0x03, b"\0\1\2\2") == answer
    assert ("rejected", "protocol version", "RAW") == tuple(
        event[k] for k in ("outcome", "reason", "calling_aet")
    )


# --- anything ---


def negotiated(body):
    """Read a request, decode it by pynetdicom, and negotiate; return results by the ids proposed."""
    understood = parse_request(body)
    decoded = A_ASSOCIATE_RQ()
    decoded.decode(PDU_HEADER.pack(1, len(understood.encoded)) + understood.encoded)
    primitive = decoded.to_primitive()
    contexts = primitive.presentation_context_definition_list
    results, _ = negotiate_as_acceptor(contexts, supported_contexts(contexts, {}))
    assert primitive.maximum_length_received is not None
    return {understood.proposed_id(one.context_id): (one.result, one.transfer_syntax) for one in results}


texts = st.one_of(
    st.sampled_from([b"", b"1.2", CT.encode(), EXPLICIT.encode(), b"\0", b" ", b"\xff", b"1." * 40]),
    st.binary(max_size=80),
)
numbers = st.integers(0, 255)
contents = st.one_of(
    texts,
    st.builds(lambda n, text, rest: struct.pack(">H", n) + text + rest, st.integers(0, 99), texts, texts),
    st.builds(lambda n, m, text: identity(n, text, text, m)[4:], numbers, numbers, texts),
    st.builds(lambda n, m: role(CT, n, m)[4:], numbers, numbers),
)
user_items = st.builds(item, st.one_of(st.integers(0x50, 0x5A), numbers), contents)
sub_items = st.builds(item, st.one_of(st.sampled_from([0x30, 0x40]), numbers), texts)
contexts = st.builds(
    lambda number, rest, items: item(0x20, bytes((number, *rest)) + b"".join(items)),
    numbers.filter(lambda number: number != 1),
    st.binary(min_size=3, max_size=3),
    st.lists(sub_items, max_size=4),
)
others = st.builds(item, numbers.filter(lambda kind: kind not in (0x20, 0x50)), texts)
well_framed = st.builds(
    lambda titles, version, items, user, tail: request(
        b"".join(items),
        b"".join(user),
        called=titles[:16],
        calling=titles[16:],
        version=version | 1,
        tail=tail,
    ),
    st.binary(max_size=32),
    st.integers(0, 0xFFFF),
    st.lists(st.one_of(contexts, others), max_size=6).flatmap(lambda some: st.permutations([GOOD, *some])),
    st.lists(user_items, max_size=6),
    st.one_of(st.just(b""), st.binary(max_size=3)),
)


@st.composite
def mutated(draw):
    """A request that is served, or anything like one, with some bytes changed, cut off or doubled."""
    body = bytearray(draw(st.one_of(st.sampled_from(list(SERVED.values())), well_framed)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        how = draw(st.integers(0, 3))
        if how == 0:
            body[at : at + 1] = bytes([draw(numbers)])
        elif how == 1:
            body[at : at + 2] = struct.pack(">H", draw(st.sampled_from([0, 1, 3, 4, 5, 64, 65535])))
        elif how == 2:
            del body[at : at + draw(st.integers(1, 40))]
        else:
            body[at:at] = body[at : at + draw(st.integers(1, 40))]
    return bytes(body)


def _always_served(examples):
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(well_framed)
    def check(body):
        assert (0, [EXPLICIT]) == negotiated(body)[1]

    check()


def _never_another_error(examples):
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(mutated(), st.binary(max_size=300), st.binary(max_size=200).map(request()[:68].__add__)))
    def check(body):
        with suppress(UnreadableRequest):
            negotiated(body)

    check()


def test_over_the_wire_it_is_served_too(server):
    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(well_framed)
    def check(body):
        with Parrot(server.port) as peer:
            peer.send(pdu(0x01, body))
            kind, answer = peer.read_pdu()
            assert (0x02, (0, EXPLICIT)) == (kind, accepted(answer)[1])
            assert 0x06 == peer.release()

    check()


def test_whatever_stands_beside_a_good_context_it_is_served():
    _always_served(300)


def test_only_its_own_error_is_raised():
    _never_another_error(300)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_whatever_stands_beside_a_good_context_it_is_served_100000_times():
    _always_served(100_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_only_its_own_error_is_raised_100000_times():
    _never_another_error(100_000)


def test_extended_negotiation_is_kept_for_what_is_proposed() -> None:
    """PS3.7 Table D.3-12; what cannot be read is left out, and the association goes on."""

    def extended(uid: str, options: bytes) -> bytes:
        return item(0x56, struct.pack(">H", len(uid)) + uid.encode() + options)

    user = MAXIMUM + extended(CT, b"\1\0\1") + extended(CT, b"\0") + extended("1.2.3", b"\1")
    user += extended(CT, b"") + extended(CT, bytes(65)) + item(0x56, b"\0\xff1.2")
    understood = parse_request(request(user=user))
    decoded = A_ASSOCIATE_RQ()
    decoded.decode(PDU_HEADER.pack(1, len(understood.encoded)) + understood.encoded)
    kept = [
        (str(one.sop_class_uid), one.service_class_application_information)
        for one in decoded.to_primitive().user_information
        if type(one).__name__ == "SOPClassExtendedNegotiation"
    ]
    assert [(CT, b"\1\0\1")] == kept
    assert 3 == len(understood.oddities)
