"""The audit events of what happens here, by the messages of PS3.15 Section A.5.3."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from index import Actor, ReceivedStudy
from index import Outcome as Kept
from scp.observing.association_info import AssociationInfo
from scp.observing.audit.codes import (
    APPLICATION,
    APPLICATION_ACTIVITY,
    APPLICATION_LAUNCHER,
    APPLICATION_START,
    APPLICATION_STOP,
    BEGIN_TRANSFERRING,
    DESTINATION,
    INSTANCES_ACCESSED,
    INSTANCES_TRANSFERRED,
    LOGIN,
    NODE_AUTHENTICATION,
    NODE_ID,
    QUERY,
    SECURITY_ALERT,
    SOP_CLASS_UID,
    SOURCE,
    STUDY_DELETED,
    USER_AUTHENTICATION,
    Action,
    Code,
    Outcome,
    Role,
)
from scp.observing.audit.messages import UNKNOWN, AuditEvent, OtherObject, Party, Source, StudyObject

USER_IDENTITY = "user_identity"
"""The reason of an association that is rejected for its user (PS3.7 Section D.3.3.7)."""

# What a receiver has done with the instances, the strongest first (PS3.15 Table A.5.3.7-1).
_ACTIONS = ((Kept.REPLACED, Action.UPDATE), (Kept.STORED, Action.CREATE))


def received_action(study: ReceivedStudy) -> Action:
    """Return what was done with the instances of a study that came; READ: they were here already."""
    outcomes = study.settled()
    return next((action for kind, action in _ACTIONS if outcomes[kind]), Action.READ)


def activity(source: Source, launcher: str, *, starts: bool) -> AuditEvent:
    """The daemon starts or stops (A.5.3.1). `launcher`: who has started it."""
    parties = source.ours(APPLICATION), Party(launcher, APPLICATION_LAUNCHER, is_requestor=True)
    kind = APPLICATION_START if starts else APPLICATION_STOP
    return AuditEvent(APPLICATION_ACTIVITY, Action.EXECUTE, parties, kind)


def received(source: Source, sender: Party, studies: Iterable[ReceivedStudy]) -> Iterator[AuditEvent]:
    """Instances came by C-STORE or STOW-RS (A.5.3.7): a message for each study."""
    for one in studies:
        study = StudyObject(one.uid, one.patient_id, one.accession, dict(one.classes))
        parties = sender, source.ours(DESTINATION)
        yield AuditEvent(INSTANCES_TRANSFERRED, Action.CREATE, parties, study=study, received=one)


def sender_of(info: AssociationInfo) -> Party:
    """Return the requester of an association as the one who sends."""
    return Party(info.calling_aet.strip(), SOURCE, info.calling_aet.strip(), info.address, is_requestor=True)


def transfer(
    source: Source,
    requester: Party,
    destination: Party,
    studies: Mapping[str, Mapping[str, int]],
    *,
    begins: bool,
    outcome: Outcome = Outcome.SUCCESS,
    why: str = "",
) -> Iterator[AuditEvent]:
    """Instances are or were sent (A.5.3.3, A.5.3.7): a message for each study.

    `studies`: how many instances of each SOP Class there are of each study.
    """
    event, action = (BEGIN_TRANSFERRING, Action.EXECUTE) if begins else (INSTANCES_TRANSFERRED, Action.READ)
    ours = source.ours(SOURCE)
    parties = [replace(ours, is_requestor=requester.user_id == ours.user_id), destination]
    if requester.user_id not in (destination.user_id, ours.user_id):
        parties.append(requester)
    for uid, classes in studies.items():
        study = StudyObject(uid, classes=classes)
        yield AuditEvent(event, action, tuple(parties), outcome=outcome, why=why, study=study)


def query(source: Source, asker: Party, asked: OtherObject, outcome: Outcome, why: str = "") -> AuditEvent:
    """A query came (A.5.3.10)."""
    parties = asker, source.ours(DESTINATION)
    return AuditEvent(QUERY, Action.EXECUTE, parties, outcome=outcome, why=why, others=(asked,))


def dicom_query(sop_class: str, identifier: bytes, transfer_syntax: str) -> OtherObject:
    """Return the data set of a C-FIND as an object of its message (Table A.5.3.10-1)."""
    syntax = {"TransferSyntax": transfer_syntax.encode()}
    return OtherObject(sop_class, SOP_CLASS_UID, Role.REPORT, query=identifier, details=syntax)


def outcome_of(*, failed: bool) -> Outcome:
    """Return the outcome of something that failed, or not."""
    return Outcome.MINOR_FAILURE if failed else Outcome.SUCCESS


def rejected(source: Source, reason: str, calling_aet: str, address: str) -> AuditEvent:
    """An association was rejected, or a caller cut off (A.5.3.11)."""
    aet = calling_aet.strip()
    caller = Party(aet or address or UNKNOWN, None, aet, address)
    text = f"association refused: {reason}".replace("_", " ")
    if reason == USER_IDENTITY:
        return login_failed(source, caller, text)
    return alert(source, caller, NODE_AUTHENTICATION, text)


def login_failed(source: Source, caller: Party, why: str) -> AuditEvent:
    """Somebody was not known, or has not proved who they are (A.5.3.12)."""
    parties = replace(caller, is_requestor=True), source.ours()
    outcome = Outcome.MINOR_FAILURE
    return AuditEvent(USER_AUTHENTICATION, Action.EXECUTE, parties, LOGIN, outcome, why)


def alert(
    source: Source, caller: Party, kind: Code, text: str, outcome: Outcome = Outcome.MINOR_FAILURE
) -> AuditEvent:
    """Something that concerns security (A.5.3.11)."""
    told = {"Alert Description": text.encode("utf-8", "replace")}
    node = OtherObject(caller.address or caller.user_id, NODE_ID, Role.SECURITY_RESOURCE, details=told)
    # Who has brought it about is no requestor (Table A.5.3.11-1).
    parties = source.ours(is_requestor=True), replace(caller, is_requestor=False)
    return AuditEvent(SECURITY_ALERT, Action.EXECUTE, parties, kind, outcome, text, others=(node,))


def deleted(
    source: Source, level: str, studies: Iterable[str], patient_id: str, actor: Actor | None
) -> Iterator[AuditEvent]:
    """A study, or a part of one, was deleted (A.5.3.8, A.5.3.6); without an actor by the daemon itself."""
    parties = [source.ours(is_requestor=actor is None)]
    if actor is not None:
        parties.insert(0, Party(actor.name, address=actor.address, is_requestor=True))
    event = STUDY_DELETED if level == "study" else INSTANCES_ACCESSED
    for uid in studies:
        yield AuditEvent(event, Action.DELETE, tuple(parties), study=StudyObject(uid, patient_id))


def accessed(
    who: Party, source: Source, study: StudyObject, outcome: Outcome = Outcome.SUCCESS, why: str = ""
) -> AuditEvent:
    """A study was read (A.5.3.6)."""
    parties = who, source.ours()
    return AuditEvent(INSTANCES_ACCESSED, Action.READ, parties, outcome=outcome, why=why, study=study)
