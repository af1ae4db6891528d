"""What a message wants, as tables: order control, order status and ADT events (HL7 v2.5.1; IHE RAD TF-2)."""

from collections.abc import Mapping
from enum import StrEnum

from index.orders.records import ENDED, Status


class Action(StrEnum):
    """What ORC-1 makes of an order."""

    NEW = "new"
    CHANGE = "change"
    CONFIRMED = "confirmed"
    """The same, of an order that is known: of another one the message is no concern of ours."""
    STATUS = "status"
    CANCEL = "cancel"
    DISCONTINUE = "discontinue"
    REPLACED = "replaced"
    """Cancelled, since the message has the order that replaces it."""
    NOTHING = "nothing"


CONTROLS: Mapping[str, Action] = {
    **dict.fromkeys(("NW", "SN", "RO", "PA", "CH"), Action.NEW),
    **dict.fromkeys(("XO", "XX"), Action.CHANGE),
    "XR": Action.CONFIRMED,
    **dict.fromkeys(("SC", "SR"), Action.STATUS),
    **dict.fromkeys(("CA", "OC", "CR"), Action.CANCEL),
    **dict.fromkeys(("DC", "OD", "DR"), Action.DISCONTINUE),
    **dict.fromkeys(("RP", "RQ", "RU"), Action.REPLACED),
    # Answers between placer and filler: accepted, received, unable to.
    **dict.fromkeys(("OK", "RR", "DE", "UA", "UC", "UD", "UF", "UH", "UM", "UR", "UX"), Action.NOTHING),
    # Held and released: an order on hold has no place of its own on a worklist, and stays.
    **dict.fromkeys(("HD", "HR", "OH", "RL", "OR", "OE"), Action.NOTHING),
    # Numbers, status requests, results, refills, charges, links to problems, steps of a laboratory.
    **dict.fromkeys(("NA", "SS", "RE", "CN", "PR", "MC", "LI", "UN", "CP"), Action.NOTHING),
    **dict.fromkeys(("RF", "AF", "DF", "FU", "OF", "OP", "PY"), Action.NOTHING),
}
"""By ORC-1: all of HL7 Table 0119."""

STATES: Mapping[str, Status | None] = {
    "SC": Status.SCHEDULED,
    "IP": Status.STARTED,
    "A": Status.STARTED,
    "CM": Status.COMPLETED,
    "CA": Status.CANCELLED,
    "RP": Status.CANCELLED,
    "DC": Status.DISCONTINUED,
    "HD": None,
    "ER": None,
}
"""By ORC-5: all of HL7 Table 0038. None: on hold, or not found by its sender, which changes nothing."""

ENDING: Mapping[Action, Status] = {
    Action.CANCEL: Status.CANCELLED,
    Action.REPLACED: Status.CANCELLED,
    Action.DISCONTINUE: Status.DISCONTINUED,
}
"""What ends an order whatever ORC-5 says."""


def status_of(action: Action, said: str) -> Status | None:
    """Return the state that a control and ORC-5 ask for; None: it stays what it is.

    A new or changed order may say that it has ended (IHE: XO with CM); that it is in process, systems say of
    orders that nobody has begun.
    """
    if action in ENDING:
        return ENDING[action]
    state = STATES.get(said)
    if action is Action.STATUS:
        return state
    return state if state in ENDED else Status.SCHEDULED


class Event(StrEnum):
    """What an ADT event makes of a patient."""

    UPDATE = "update"
    MERGE = "merge"
    UNLINK = "unlink"
    UNABLE = "unable"
    """It would concern orders or studies, and cannot be done."""
    NOTHING = "nothing"


EVENTS: Mapping[str, Event] = {
    # What is known of the patient now: A08 is the update, the others say the same.
    **dict.fromkeys(("A01", "A04", "A05", "A08", "A28", "A31"), Event.UPDATE),
    # A40, and what it was called before HL7 2.3.1; A47 gives a patient another identifier.
    **dict.fromkeys(("A18", "A30", "A34", "A36", "A40", "A47"), Event.MERGE),
    "A37": Event.UNLINK,
    # Two records of one person, visits and accounts that go to another patient, external identifiers.
    **dict.fromkeys(("A24", "A39", "A43", "A44", "A45", "A46"), Event.UNABLE),
    # Where patients are, came from and go to; that they leave or do not.
    **dict.fromkeys(("A02", "A03", "A06", "A07", "A09", "A10", "A11", "A12", "A13"), Event.NOTHING),
    **dict.fromkeys(("A14", "A15", "A16", "A17", "A20", "A21", "A22", "A25", "A26"), Event.NOTHING),
    **dict.fromkeys(("A27", "A32", "A33", "A38", "A52", "A53"), Event.NOTHING),
    # Records deleted (images stay), accounts, visits and alternate identifiers, doctors, allergies.
    **dict.fromkeys(("A23", "A29", "A35", "A41", "A42", "A48", "A49", "A50", "A51"), Event.NOTHING),
    **dict.fromkeys(("A54", "A55", "A60", "A61", "A62"), Event.NOTHING),
}
"""By MSH-9.2: the ADT events of HL7 Table 0003."""
