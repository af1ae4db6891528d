"""What a caller may do over HTTP, and endpoints that ask for it."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

UNAUTHORIZED, FORBIDDEN = 401, 403


class Right(StrEnum):
    """READ: resources, objects, searches. WRITE: objects and orders come in. OPERATE: delete, mend, match."""

    READ = "read"
    WRITE = "write"
    OPERATE = "operate"


ALL_RIGHTS = frozenset(Right)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a name for the log, what they may do, and why they are nobody, where they are."""

    name: str
    rights: frozenset[Right] = frozenset()
    why_unknown: str = ""


Refuse = Callable[[int, str], "Response"]
Endpoint = Callable[["Request"], "Response | Awaitable[Response]"]


def caller_of(request: "Request") -> Caller:
    """Return who calls, as the guard before the application has found out."""
    caller = getattr(request.state, "caller", None)
    return caller if isinstance(caller, Caller) else Caller("", why_unknown="the request was not checked")


def needs(right: Right, refuse: Refuse | None = None) -> Callable[[Any], Any]:
    """Make an endpoint that callers with this right alone may have; others get what `refuse` makes.

    401 where nobody known calls (RFC 9110 Section 15.5.2), 403 where somebody known may not.
    """

    def refusal(request: "Request") -> "Response | None":
        caller = caller_of(request)
        if right in caller.rights:
            return None
        status = UNAUTHORIZED if caller.why_unknown else FORBIDDEN
        why = caller.why_unknown or f"{caller.name} may not {right}"
        response = (refuse or _text)(status, why)
        if status == UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = 'Bearer realm="imagingstudyd"'
        return response

    def guarded(endpoint: Endpoint) -> Endpoint:
        if inspect.iscoroutinefunction(endpoint):

            @wraps(endpoint)
            async def call(request: "Request") -> "Response":
                made: Response = refusal(request) or await endpoint(request)
                return made

            return call

        @wraps(endpoint)
        def call_in_thread(request: "Request") -> "Response":
            return refusal(request) or endpoint(request)  # type: ignore[return-value]

        return call_in_thread

    return guarded


def _text(status: int, why: str) -> "Response":
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(f"{why}\n", status)
