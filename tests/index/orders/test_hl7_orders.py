"""Orders by HL7 over real sockets: what becomes of each message, and how it is answered."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from index import Index, OrderStatus
from index.orders.hl7 import mllp
from support.daemon import eventually
from support.hl7 import END, START, Sender, adt, message, msh, order_group, orm, pid, verdict
from support.worklist import selected, set_step_status


def only(index: Index) -> Any:
    (order,) = index.orders.listed()
    return order


def steps(index: Index) -> list[dict[str, Any]]:
    return only(index).attributes["ScheduledProcedureStepSequence"]


def test_a_new_order_has_the_attributes_that_ihe_maps(index: Index, ris: Sender) -> None:
    answer = ris.send(orm(uid="1.2.3.4"))
    assert ["MSH", "MSA"] == [segment[0] for segment in answer]
    assert ["IMAGINGSTUDYD", "RADIOLOGY", "RIS", "HOSPITAL"] == answer[0][2:6]
    assert ["ACK^O01^ACK", "P", "2.5.1", "UNICODE UTF-8"] == [answer[0][n] for n in (8, 10, 11, 17)]
    assert ["MSA", "AA", "M1"] == answer[1]
    order = only(index)
    assert ("hl7", "RIS|HOSPITAL", "SCHEDULED", "1.2.3.4") == (
        order.source,
        order.sender,
        order.status,
        order.study_uid,
    )
    expected = {
        "PatientID": "P1",
        "PatientName": "Doe^Jane^Q^Dr^Jr",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "AccessionNumber": "A1",
        "RequestedProcedureID": "RP1",
        "RequestedProcedureDescription": "CT Head",
        "RequestedProcedureCodeSequence": [
            {"CodeValue": "CTHEAD", "CodeMeaning": "CT Head", "CodingSchemeDesignator": "99RIS"}
        ],
        "RequestedProcedurePriority": "STAT",
        "ReasonForTheRequestedProcedure": "Head & neck pain",
        "PlacerOrderNumberImagingServiceRequest": "PL1",
        "OrderPlacerIdentifierSequence": [{"LocalNamespaceEntityID": "HIS"}],
        "FillerOrderNumberImagingServiceRequest": "FI1",
        "OrderFillerIdentifierSequence": [{"LocalNamespaceEntityID": "RIS"}],
        "RequestingPhysician": "Roe^Richard^^Dr",
        "ReferringPhysicianName": "Ref^Rita",
        "CurrentPatientLocation": "WARD1",
        "IssueDateOfImagingServiceRequest": "20260104",
        "IssueTimeOfImagingServiceRequest": "120000",
        "StudyInstanceUID": "1.2.3.4",
        "ScheduledProcedureStepSequence": [
            {
                "ScheduledProcedureStepID": "SPS1",
                "ScheduledProcedureStepStatus": "SCHEDULED",
                "ScheduledProcedureStepStartDate": "20260105",
                "ScheduledProcedureStepStartTime": "101500",
                "ScheduledProcedureStepDescription": "Head native",
                "ScheduledProtocolCodeSequence": [
                    {"CodeValue": "CTH1", "CodeMeaning": "Head native", "CodingSchemeDesignator": "99RIS"}
                ],
                "ScheduledPerformingPhysicianName": "Tech^Tom",
                "Modality": "CT",
            }
        ],
    }
    assert expected == order.attributes


def test_omi_has_its_steps_in_ipc(index: Index, ris: Sender) -> None:
    segments = [msh("OMI^O23"), pid(), *order_group(accession="", procedure="", step="")]
    segments += [
        "TQ1|1||||||20260106090000||A",
        "IPC|A9^RIS|RP9|1.2.3.9|S1|MR^MR^DCM|P1^Brain^99RIS|MRROOM|R1^Room 1|MR1",
        "IPC|A9^RIS|RP9|1.2.3.9|S2|MR^MR^DCM|P2^Spine^99RIS|MRROOM|R1^Room 1|MR2",
    ]
    assert "AA" == verdict(ris.send(message(*segments)))
    order = only(index)
    assert ("1.2.3.9", "A9", "RP9", "HIGH") == (
        order.study_uid,
        order.attributes["AccessionNumber"],
        order.attributes["RequestedProcedureID"],
        order.attributes["RequestedProcedurePriority"],
    )
    assert [("S1", "MR1", "MR", "Brain"), ("S2", "MR2", "MR", "Spine")] == [
        tuple(
            step[k]
            for k in (
                "ScheduledProcedureStepID",
                "ScheduledStationAETitle",
                "Modality",
                "ScheduledProcedureStepDescription",
            )
        )
        for step in steps(index)
    ]


def test_several_obr_of_one_procedure_are_steps_of_it_and_others_are_orders(
    index: Index, ris: Sender
) -> None:
    groups = [
        *order_group(placer="PL1", filler="F1", step="S1"),
        *order_group(placer="PL2", filler="F2", step="S2"),
        *order_group(placer="PL3", filler="F3", accession="A3", procedure="RP3", step="S3"),
    ]
    assert "AA" == verdict(ris.send(message(msh("ORM^O01"), pid(), *groups, "ZDS|1.2.7^1^Application^DICOM")))
    told = [
        (
            order.attributes["AccessionNumber"],
            order.study_uid,
            [s["ScheduledProcedureStepID"] for s in order.attributes["ScheduledProcedureStepSequence"]],
        )
        for order in index.orders.listed()
    ]
    assert [("A1", "1.2.7", ["S1", "S2"]), ("A3", "1.2.7", ["S3"])] == told


def test_a_study_uid_is_assigned_once_and_kept(index: Index, ris: Sender) -> None:
    ris.send(orm())
    uid = only(index).study_uid
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    ris.send(orm("XO", start="20260106111500"))
    assert (uid, "20260106") == (only(index).study_uid, steps(index)[0]["ScheduledProcedureStepStartDate"])


def test_a_change_leaves_what_it_does_not_name_and_deletes_what_is_null(index: Index, ris: Sender) -> None:
    ris.send(orm())
    change = message(
        msh("ORM^O01"),
        'PID|1||P1^^^^MR||||""',
        "ORC|XO|PL1|FI1",
        "OBR|1|PL1|FI1|||||||||||||||A1|RP1|SPS1||||MR",
    )
    assert "AA" == verdict(ris.send(change))
    said = only(index).attributes
    assert ("Doe^Jane^Q^Dr^Jr", "CT Head") == (said["PatientName"], said["RequestedProcedureDescription"])
    assert "PatientBirthDate" not in said
    assert [("MR", "20260105")] == [
        (s["Modality"], s["ScheduledProcedureStepStartDate"]) for s in steps(index)
    ]


@pytest.mark.parametrize(
    ("control", "state", "expected"),
    [
        ("CA", "", "CANCELLED"),
        ("OC", "", "CANCELLED"),
        ("DC", "", "DISCONTINUED"),
        ("SC", "CM", "COMPLETED"),
        ("SC", "IP", "STARTED"),
    ],
)
def test_an_order_is_ended_by_its_number_alone(
    index: Index, ris: Sender, control: str, state: str, expected: str
) -> None:
    ris.send(orm())
    ended = message(msh("ORM^O01"), pid(), f"ORC|{control}|PL1|||{state}")
    assert "AA" == verdict(ris.send(ended))
    assert (expected, [expected]) == (
        only(index).status,
        [s["ScheduledProcedureStepStatus"] for s in steps(index)],
    )
    assert [] == selected(index)


def test_what_a_modality_began_is_not_set_back_by_a_change(index: Index, ris: Sender) -> None:
    ris.send(orm())
    assert 1 == len(selected(index))
    set_step_status(index, OrderStatus.STARTED)
    ris.send(orm("XO"))
    assert ("STARTED", "STARTED") == (only(index).status, steps(index)[0]["ScheduledProcedureStepStatus"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"nonsense", "AR MSH: a message begins with MSH and its delimiters"),
        (b"MSH|^~\\&", "AR MSH: a message begins with MSH and its delimiters"),
        (message(msh("ORU^R01"), pid()), "AR MSH-9: ORU\\S\\R01 is none of"),
        (adt("A99", pid()), "AR MSH-9: ADT event 'A99' is none of"),
        (message(msh("ORM^O01"), *order_group()), "AE PID: the segment is missing"),
        (orm(patient="PID|1||"), "AE PID-3: a patient identifier is required"),
        (message(msh("ORM^O01"), pid()), "AE ORC: the segment is missing"),
        (message(msh("ORM^O01"), pid(), "ORC|NW|PL1"), "AE OBR: the segment is missing behind ORC 1"),
        (orm("ZZ"), "AE ORC-1: order control 'ZZ' is none of"),
        (orm("SC", status="??"), "AE ORC-5: order status '??' is none of"),
        (orm("CA"), "AE ORC-2: no order has this placer, filler or accession number"),
        (orm(placer="", filler="", accession="", procedure=""), "AE ORC-2: a placer, filler"),
        (orm(uid="1.2.x"), "AE ZDS-1: '1.2.x' is not a UID"),
        (orm(charset="KLINGON"), "AE MSH-18: character set 'KLINGON' is none of"),
        (orm(patient=pid(name="Müller^Ä")).replace("ü".encode(), b"\xfc"), "AE MSH-18: byte"),
        (adt("A40", pid()), "AE MRG: the segment is missing"),
        (adt("A40", pid(), "MRG|"), "AE MRG-1: the old patient's identifier is required"),
    ],
)  # fmt: skip
def test_a_bad_message_is_answered_with_the_segment_and_changes_nothing(
    index: Index, ris: Sender, content: bytes, expected: str
) -> None:
    answer = ris.send(content)
    assert verdict(answer).startswith(expected[:60]), answer
    error = next(segment for segment in answer if segment[0] == "ERR")
    assert error[2].split("^")[0] == expected.split()[1].split("-", maxsplit=1)[0].strip(":")
    assert [] == index.orders.listed()
    assert "AA" == verdict(ris.send(orm()))  # the connection and the listener are well


def test_the_fault_in_the_second_order_keeps_the_first_out_too(index: Index, ris: Sender) -> None:
    groups = [*order_group(), *order_group("ZZ", placer="PL2", accession="A2", procedure="RP2")]
    answer = ris.send(message(msh("ORM^O01"), pid(), *groups))
    assert "ORC^2^1" == next(segment for segment in answer if segment[0] == "ERR")[2]
    assert [] == index.orders.listed()


def test_old_versions_get_their_error_as_one_composite(ris: Sender) -> None:
    segments = [msh("ORM^O01", version="2.3.1"), pid(), *order_group("ZZ")]
    answer = ris.send(message(*segments))
    assert ["ERR", "ORC^1^1^103&Table value not found&HL70357"] == answer[-1]


@pytest.mark.parametrize(
    ("charset", "codec", "name", "dicom"),
    [
        ("8859/1", "latin-1", "Müller^Zoë", "ISO_IR 100"),
        ("8859/5", "iso8859-5", "Жданов", "ISO_IR 144"),
        ("UNICODE UTF-8", "utf-8", "Buc^Jérôme", "ISO_IR 192"),
        ("GB 18030-2000", "gb18030", "王^小东", "GB18030"),
        ("~ISO IR87", "iso2022_jp", "山田^太郎", "ISO_IR 192"),
        ("", "utf-8", "Müller^Zoë", "ISO_IR 192"),
        ("", "latin-1", "Müller^Zoë", "ISO_IR 100"),
    ],
)
def test_character_sets(index: Index, ris: Sender, charset: str, codec: str, name: str, dicom: str) -> None:
    text = orm(patient=pid(name=name), charset=charset).decode()
    ris.socket.sendall(START + text.encode(codec) + END)
    while END not in ris._buffer:
        ris._buffer += ris.socket.recv(65536)
    assert b"MSA|AA|" in ris._buffer
    (item,) = selected(index)
    assert (name, dicom) == (item.attributes["PatientName"], item.charset)


def test_name_groups_and_escapes(index: Index, ris: Sender) -> None:
    names = "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"
    ris.send(orm(patient=pid(name=names), obr4="C^a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f\\X41\\\\H\\g\\N\\^L"))
    said = only(index).attributes
    assert "Yamada^Tarou=山田^太郎=やまだ^たろう" == said["PatientName"]
    assert "a|b^c&d~e\\fAg" == said["RequestedProcedureDescription"]


def test_a_sender_has_its_own_places_and_character_set(served: Callable[..., Index]) -> None:
    own = {
        "application": "RIS",
        "charset": "8859/5",
        "map": {"AccessionNumber": "OBR-3.1", "ScheduledStationAETitle": "OBR-24"},
    }
    other = {"application": "OTHER", "map": {"AccessionNumber": "OBR-2.1"}}
    index = served(hl7_senders=(other, own))
    sender = Sender(index.orders.hl7_address)
    text = orm(patient=pid(name="Жданов"), charset="").decode()
    answer = sender.socket.sendall(START + text.encode("iso8859-5") + END) or sender.answer()
    sender.close()
    assert "AA" == verdict(answer)
    said = only(index).attributes
    assert ("Жданов", "FI1", "CT") == (
        said["PatientName"],
        said["AccessionNumber"],
        steps(index)[0]["ScheduledStationAETitle"],
    )


def test_messages_in_pieces_and_several_at_once(index: Index, ris: Sender) -> None:
    first, second = orm(), orm(placer="PL2", filler="F2", accession="A2", procedure="RP2")
    stream = b"\r\n" + START + first + END + START + second + END
    for at in range(0, len(stream), 97):
        ris.socket.sendall(stream[at : at + 97])
    assert ["AA", "AA"] == [verdict(ris.answer()), verdict(ris.answer())]
    assert 2 == len(index.orders.listed())


def test_a_message_that_does_not_end_is_cut_off(
    index: Index, ris: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "MAX_MESSAGE", 10_000)
    ris.socket.sendall(START + b"MSH|^~\\&|" + b"x" * 20_000)
    with pytest.raises((ConnectionError, OSError)):
        ris.answer()
    another = Sender(index.orders.hl7_address)
    assert "AA" == verdict(another.send(orm()))
    another.close()


def test_a_message_that_is_too_large_is_rejected_and_the_next_one_taken(
    index: Index, ris: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that is only cut off sends the same message for ever (HL7 v2.5.1 Section 2.9.2: AR)."""
    monkeypatch.setattr(mllp, "MAX_MESSAGE", 10_000)
    answer = ris.send(orm() + b"NTE|1||" + b"x" * 300_000)
    assert ("AR MSH: a message is larger than 10000 bytes", "M1") == (verdict(answer), answer[1][2])
    assert [] == index.orders.listed()
    assert "AA" == verdict(ris.send(orm()))


def test_a_slow_message_is_cut_off() -> None:
    near, far = socket.socketpair()
    frames = mllp.FrameReader(near, idle=5, message=0.2)
    far.sendall(START + b"MSH")
    with pytest.raises(mllp.ConnectionEnded, match="silent"):
        frames.next()
    near.close()
    far.close()


def test_connections_are_bounded(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "MAX_CONNECTIONS", 2)
    senders = [Sender(index.orders.hl7_address) for _ in range(2)]
    assert ["AA", "AA"] == [verdict(sender.send(orm())) for sender in senders]
    one_more = Sender(index.orders.hl7_address)
    with pytest.raises((ConnectionError, OSError)):
        one_more.send(orm())
    senders[0].close()

    def again() -> bool:
        try:
            sender = Sender(index.orders.hl7_address)
            return "AA" == verdict(sender.send(orm()))
        except OSError:
            return False

    assert eventually(again)
    for sender in senders:
        sender.close()


def test_networks_that_are_not_allowed_get_nothing(served: Callable[..., Index]) -> None:
    index = served(hl7_networks=("10.1.2.0/24",))
    sender = Sender(index.orders.hl7_address)
    with pytest.raises((ConnectionError, OSError)):
        sender.send(orm())
    assert [] == index.orders.listed()


def test_a_full_database_is_an_error_that_the_sender_may_repeat(
    index: Index, ris: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    from index import NotKept

    def full(_: object) -> None:
        raise NotKept("database or disk is full")

    monkeypatch.setattr(index.orders.store, "put_found", full)
    assert verdict(ris.send(orm())).startswith("AE MSH: cannot be kept now")
    monkeypatch.undo()
    assert "AA" == verdict(ris.send(orm()))


def test_off_by_default() -> None:
    from index import WorklistSettings

    assert (None, "127.0.0.1") == (WorklistSettings().hl7_port, WorklistSettings().hl7_host)
