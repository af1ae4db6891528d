"""OperationOutcome: what FHIR says instead of a resource, or beside it."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

MEDIA_TYPES = {
    "dstu2": "application/json+fhir",
    "r4": "application/fhir+json",
    "r5": "application/fhir+json",
}
"""The media type of each version's JSON (DSTU2 2.1.0.6, R4 and R5 3.1.0.1.9)."""

# http://hl7.org/fhir/issue-type; DSTU2 has no word for these.
_OLDER = {"deleted": "not-found", "multiple-matches": "processing"}
# The issue type of errors that are found before the face knows what is asked.
_BY_STATUS = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    410: "deleted",
    413: "too-long",
    415: "not-supported",
    503: "transient",
}


class Refused(Exception):
    """A request that is answered by an OperationOutcome. `code`: an issue type; empty: by the status."""

    def __init__(
        self, status: int, text: str, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers
        self.code = code or code_of(status)


def code_of(status: int) -> str:
    """Return the issue type of an HTTP status."""
    return _BY_STATUS.get(status, "exception" if status >= 500 else "processing")  # noqa: PLR2004  RFC 9110


def issue(code: str, text: str, severity: str = "error", fhir: str = "r4") -> dict[str, Any]:
    """Return one OperationOutcome.issue."""
    return {
        "severity": severity,
        "code": _OLDER.get(code, code) if fhir == "dstu2" else code,
        "diagnostics": text,
    }


def outcome_resource(*issues: dict[str, Any]) -> dict[str, Any]:
    """Return an OperationOutcome of these issues."""
    return {"resourceType": "OperationOutcome", "issue": list(issues)}


def outcome(
    status: int, code: str, text: str, fhir: str = "r4", headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as an answer. `code` is an issue type (http://hl7.org/fhir/issue-type)."""
    content = orjson.dumps(outcome_resource(issue(code, text, fhir=fhir)), option=orjson.OPT_APPEND_NEWLINE)
    return Response(content, status, headers, MEDIA_TYPES[fhir])
