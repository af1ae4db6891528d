"""What a target's answers mean: one table, from the status to what is done about it.

The worst that can be done is to take the server's fault for the study's: thousands of studies would be dead
letters after a night. So answers that may be either's are the server's until another study succeeds.
"""

import email.utils
import time
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

from index.publication.targets.http.client import Answer, NoAnswer
from index.publication.targets.knowledge import Learnt

# The longest that a server may ask us to wait, in seconds, and characters of its reason.
LONGEST_RETRY_AFTER = 86400.0
LONGEST_REASON = 500
LONGEST_OUTCOME = 64 * 1024


class Action(StrEnum):
    """What is done about an answer."""

    DONE = "done"
    # It is the server's: nothing is sent for a while, and the study loses no attempt.
    PAUSE = "pause"
    # It may be the server's or the study's.
    SUSPECT = "suspect"
    # It is the study's, and may pass: it is tried again some times, later and later.
    AGAIN = "again"
    # What we know of the server may no longer hold: it is sent once more as if nothing were known.
    FORGET = "forget"
    # It is too much at once: one resource after the other.
    SPLIT = "split"
    # It is the study's, and will not pass.
    GIVE_UP = "give up"
    # What it needs is not there yet.
    HOLD = "hold"


# By status. FHIR http.html#update, #transaction and RFC 9110 Section 15; others by their class, below.
TABLE: dict[int, tuple[Action, str]] = {
    200: (Action.DONE, ""),
    201: (Action.DONE, ""),
    202: (Action.DONE, ""),
    204: (Action.DONE, ""),
    400: (Action.FORGET, "the server finds the request wrong"),
    401: (Action.PAUSE, "the server does not know us: check authorization and its secret"),
    403: (Action.SUSPECT, "the server does not allow it: check what our user may do there"),
    404: (Action.SUSPECT, "the server knows no such address: check url, and whether it takes our ids"),
    405: (Action.SPLIT, "the server does not take this: check url, method and write"),
    406: (Action.SUSPECT, "the server does not answer in FHIR JSON"),
    407: (Action.PAUSE, "the proxy does not know us: check proxy"),
    408: (Action.SUSPECT, "the server has not read the request in time"),
    409: (Action.AGAIN, "the server has a conflict with another change"),
    410: (Action.FORGET, "the server says that it is gone"),
    412: (Action.FORGET, "the server has another version, or several that fit"),
    413: (Action.SPLIT, "the server finds it too large"),
    415: (Action.SUSPECT, "the server takes no FHIR JSON"),
    422: (Action.FORGET, "the server refuses what it says"),
    429: (Action.PAUSE, "the server asks for a pause"),
    500: (Action.SUSPECT, "the server has failed"),
    501: (Action.SPLIT, "the server cannot do this: check method"),
    502: (Action.PAUSE, "what stands before the server does not reach it"),
    503: (Action.PAUSE, "the server is not available"),
    504: (Action.PAUSE, "what stands before the server gets no answer"),
}
_OTHERS = {
    2: (Action.DONE, ""),
    3: (Action.PAUSE, "the server redirects to another address, which is not followed: check url"),
    4: (Action.FORGET, "the server refuses it"),
    5: (Action.SUSPECT, "the server has failed"),
}
WEB_PAGE = "the answer is a web page: check url, and what stands before the server"
NO_FHIR = "the answer is no FHIR resource, or only a part of one"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of something, and what was learnt. `reason` has no patient data, `outcome` may have."""

    action: Action
    reason: str = ""
    outcome: str = ""
    retry_after: float = 0.0
    learnt: dict[str, Learnt] = field(default_factory=dict)
    forgotten: tuple[str, ...] = ()
    # A study that was sent without something that the server may have later.
    is_provisional: bool = False


def judge(answer: Answer) -> Result:
    """Return what is done about an answer to one request."""
    action, meaning = TABLE.get(answer.status) or _OTHERS.get(answer.status // 100, _OTHERS[5])
    if action is Action.DONE:
        return Result(Action.SUSPECT, WEB_PAGE) if answer.is_page else Result(action)
    reason = f"{_status(answer.status)}: {meaning}"
    if answer.redirect:
        reason = f"{_status(answer.status)}: redirects to {answer.redirect}, which is not followed: check url"
    elif answer.is_page:
        # Whoever wrote the page has not looked at the study.
        action = action if action in (Action.PAUSE, Action.SPLIT) else Action.SUSPECT
        reason = f"{_status(answer.status)}: {WEB_PAGE}"
    return Result(action, reason, outcome_of(answer), retry_after(answer))


def no_answer(error: NoAnswer) -> Result:
    """Return what is done where there was no whole answer."""
    return Result(Action.SUSPECT if error.is_reached else Action.PAUSE, str(error))


def worse(one: Result, other: Result) -> Result:
    """Return the one about which more is to be done."""
    return max(
        one, other, key=lambda each: list(Action).index(each.action) if each.action != Action.PAUSE else 99
    )


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def outcome_of(answer: Answer) -> str:
    """Return the server's OperationOutcome as JSON, or the beginning of what it says instead."""
    found = answer.resource
    if found is not None and found["resourceType"] != "OperationOutcome":
        return ""
    return answer.body.decode("utf-8", "replace")[: LONGEST_OUTCOME if found else LONGEST_REASON]


def retry_after(answer: Answer) -> float:
    """Return the seconds that the server asks for (RFC 9110 Section 10.2.3); 0: it asks for none."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, at - time.time()), LONGEST_RETRY_AFTER)
