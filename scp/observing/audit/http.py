"""What an HTTP request means for the audit trail: one table of paths.

Refused callers come first (401: User Authentication, 403 and 421: Security Alert), whatever they asked for.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import parse_qs

from index import Access
from scp.observing.audit import events
from scp.observing.audit.codes import (
    DESTINATION,
    NODE_AUTHENTICATION,
    RESTRICTED_FUNCTION,
    SECURITY_CONFIGURATION,
    SOURCE,
    URI,
    Code,
    Outcome,
    Role,
)
from scp.observing.audit.messages import UNKNOWN, AuditEvent, OtherObject, Party, Source, StudyObject

_UNAUTHORIZED, _FORBIDDEN, _MISDIRECTED, _FAILED, _OURS = 401, 403, 421, 400, 500
_UID = r"[0-9.]{1,64}"
_LEVELS = rf"/studies/(?P<study>{_UID})(/series/(?P<series>{_UID})(/instances/(?P<instance>{_UID}))?)?"
_STUDY = rf"(?P<study>{_UID})"


@dataclass(frozen=True, slots=True)
class _Request:
    """A request, and what its path names."""

    access: Access
    named: dict[str, str]
    outcome: Outcome
    why: str

    def party(self, role: Code | None = None) -> Party:
        return _party(self.access, role)

    @property
    def studies(self) -> list[str]:
        """The study of the path, or of WADO-URI's query."""
        if study := self.named.get("study"):
            return [study]
        given = parse_qs(self.access.query.decode("ascii", "replace"))
        return [uid for uid in given.get("studyUID", [])[:1] if re.fullmatch(_UID, uid)]


def _party(access: Access, role: Code | None = None) -> Party:
    name = access.caller or access.address or UNKNOWN
    return Party(name, role, address=access.address, is_requestor=True)


_Make = Callable[[Source, _Request], Iterator[AuditEvent]]


def _query(source: Source, request: _Request) -> Iterator[AuditEvent]:
    """Yield a Query: what was asked is its path and its parameters (Section A.5.3.10 Note 2)."""
    access = request.access
    asked = OtherObject(access.path, URI, Role.REPORT, query=access.query)
    yield events.query(source, request.party(SOURCE), asked, request.outcome, request.why)


def _accessed(source: Source, request: _Request) -> Iterator[AuditEvent]:
    for uid in request.studies:
        study = StudyObject(uid, looked_up=uid)
        yield events.accessed(request.party(), source, study, request.outcome, request.why)


def _sent(source: Source, request: _Request) -> Iterator[AuditEvent]:
    """Yield what WADO-RS and WADO-URI send; the beginning has the time of the request."""
    caller = request.party(DESTINATION)
    named = request.named.get("instance") or request.named.get("series") or ""
    for uid in request.studies:
        for begins in (True, False):
            outcome = Outcome.SUCCESS if begins else request.outcome
            why = "" if begins else request.why
            made = events.transfer(source, caller, caller, {uid: {}}, begins=begins, outcome=outcome, why=why)
            for one in made:
                study = StudyObject(uid, looked_up=named)
                yield replace(one, study=study, at=request.access.began if begins else one.at)


def _received(source: Source, request: _Request) -> Iterator[AuditEvent]:
    if request.access.received is not None:
        yield from events.received(source, request.party(SOURCE), request.access.received.take())


def _reconfigured(source: Source, request: _Request) -> Iterator[AuditEvent]:
    """Yield that a subscription was changed: by it studies are told to others."""
    text = f"{request.access.method} {request.access.path}"
    yield events.alert(source, request.party(), SECURITY_CONFIGURATION, text, request.outcome)


def _nothing(_: Source, __: _Request) -> Iterator[AuditEvent]:
    """Yield nothing: it is no access to patients, or has its event elsewhere (deletion)."""
    yield from ()


_READ = ("GET", "HEAD")
_CHANGE = ("POST", "PUT", "DELETE", "PATCH")
_TABLE: tuple[tuple[tuple[str, ...], str, _Make], ...] = (
    # DICOMweb (PS3.18).
    (("DELETE",), r"/dicom-web/.*", _nothing),
    (("POST",), rf"/dicom-web/studies(/{_STUDY})?", _received),
    (_READ, r"/dicom-web/(studies|series|instances)", _query),
    (_READ, rf"/dicom-web/studies/{_STUDY}/(series|instances)", _query),
    (_READ, rf"/dicom-web/studies/{_STUDY}/series/{_UID}/instances", _query),
    (_READ, rf"/dicom-web{_LEVELS}", _sent),
    (_READ, rf"/dicom-web{_LEVELS}/.+", _accessed),
    (_READ, r"/dicom-web(/|/wado)?", _sent),
    # FHIR.
    (_READ, r"/fhir/[a-z0-9]+/(metadata|SubscriptionTopic.*)", _nothing),
    (_CHANGE, r"/fhir/[a-z0-9]+/Subscription(/[^/$]+)?", _reconfigured),
    (_READ, rf"/fhir/[a-z0-9]+/ImagingStudy/{_STUDY}(/.*)?", _accessed),
    ((*_READ, "POST"), r"/fhir/[a-z0-9]+/[^/]+/_search", _query),
    (_READ, r"/fhir/.+", _query),
    # The change feed, and the page.
    (_READ, r"/changes", _query),
    (_READ, rf"/studies/{_STUDY}(/.*)?", _accessed),
    (_READ, r"/(studies|worklist)?", _query),
    (_READ, r"/(orders|instances)/.+", _query),
)
_COMPILED = tuple((methods, re.compile(path), make) for methods, path, make in _TABLE)


def http_events(source: Source, access: Access) -> Iterator[AuditEvent]:
    """Yield the events of a request that has been answered."""
    status = access.status
    if status == _UNAUTHORIZED:
        yield events.login_failed(source, _party(access), "answered 401: the caller is not known")
        return
    if status in (_FORBIDDEN, _MISDIRECTED):
        kind = RESTRICTED_FUNCTION if status == _FORBIDDEN else NODE_AUTHENTICATION
        text = f"{status}: {access.method} {access.path}"
        yield events.alert(source, _party(access), kind, text)
        return
    for methods, path, make in _COMPILED:
        if access.method in methods and (found := path.fullmatch(access.path)):
            named = {name: value for name, value in found.groupdict().items() if value}
            yield from make(source, _Request(access, named, _outcome(access), _why(access)))
            return


def _outcome(access: Access) -> Outcome:
    if _FAILED > access.status > 0:
        return Outcome.SUCCESS if access.is_whole else Outcome.MINOR_FAILURE
    return Outcome.MINOR_FAILURE if 0 < access.status < _OURS else Outcome.SERIOUS_FAILURE


def _why(access: Access) -> str:
    if access.status == 0:
        return "there was no answer"
    if access.status >= _FAILED:
        return f"answered {access.status}"
    return "" if access.is_whole else "the answer was cut off"
