"""read, vread and history of one resource (R4 and R5 3.2.0, DSTU2 2.1.0)."""

from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from index.facade import Index
from index.publication.feed import CREATED, DELETED, Entry
from index.publication.resources import StoredResource
from index.publication.terms.parameters import types_of
from index.web.fhir.bundles import Bundle, instant, with_meta
from index.web.fhir.forms import Form, Parameters, encoded, form_of, subset
from index.web.fhir.outcomes import MEDIA_TYPES, Refused

NOT_MODIFIED = 304
_VARY = {"Vary": "Accept, Accept-Encoding"}
# The method and status of a change, as if a client had made it (R4 3.1.0.11, Bundle.entry.request).
_REQUESTS = {CREATED: ("PUT", "201"), DELETED: ("DELETE", "204")}
_UPDATE = ("PUT", "200")


class Reading:
    """Answers reads of the resources of one FHIR version."""

    def __init__(self, index: Index, fhir: str) -> None:
        self._index = index
        self._fhir = fhir

    def read(self, request: Request) -> Response:
        """Return a resource as it is now."""
        form = form_of(request.query_params.multi_items(), request.headers, self._fhir)
        return self._answer(request, self._found(request), form)

    def vread(self, request: Request) -> Response:
        """Return a version of a resource: the last is kept."""
        form = form_of(request.query_params.multi_items(), request.headers, self._fhir)
        version = request.path_params["version"]
        stored = self._found(request, or_deleted=True)
        name = f"{stored.type}/{stored.name}"
        if version == str(stored.version):
            return self._answer(request, self._live(stored), form)
        if version.isdecimal() and 0 < int(version[:18]) < stored.version:
            raise Refused(404, f"{name}: version {version} is no longer kept, the last is {stored.version}")
        raise Refused(404, f"{name}: has no version {version[:64]}")

    def history(self, request: Request, base: str) -> Response:
        """Return the changes of a resource that the feed remembers, newest first, as a Bundle."""
        parameters = request.query_params.multi_items()
        form = form_of(parameters, request.headers, self._fhir)
        stored = self._found(request, or_deleted=True)
        entries = self._index.resources.history(self._fhir, stored.type, stored.name)[::-1]
        since = _since(parameters)
        bundle = Bundle(self._fhir, "history", self_url(request, base), base)
        for entry in entries:
            if entry.at >= since:
                bundle.add_raw(self._entry(entry, stored, form, base))
        return Response(
            bundle.encoded(pretty=form.pretty, total=len(bundle.entries)),
            media_type=MEDIA_TYPES[self._fhir],
            headers=_VARY,
        )

    def _entry(self, entry: Entry, stored: StoredResource, form: Form, base: str) -> dict[str, Any]:
        method, status = _REQUESTS.get(entry.change, _UPDATE)
        name = f"{entry.type}/{entry.id}"
        made: dict[str, Any] = {"fullUrl": f"{base}/{name}"}
        if entry.version == stored.version and stored.gzipped:
            content = with_meta(stored.content, stored.version, stored.changed)
            whole = form.is_whole
            made["resource"] = (
                orjson.Fragment(content) if whole else subset(orjson.loads(content), form, self._fhir)
            )
        made["request"] = {"method": method, "url": name}
        made["response"] = {
            "status": status,
            "etag": f'W/"{entry.version}"',
            "lastModified": instant(entry.at),
        }
        return made

    def _found(self, request: Request, *, or_deleted: bool = False) -> StoredResource:
        kind, name = request.path_params["type"], request.path_params["id"]
        check_type(self._fhir, kind)
        stored = self._index.resources.read(self._fhir, kind, name)
        if stored is None:
            raise Refused(404, f"{kind}/{name[:100]} is not known")
        return stored if or_deleted else self._live(stored)

    @staticmethod
    def _live(stored: StoredResource) -> StoredResource:
        name = f"{stored.type}/{stored.name}"
        if stored.deleted:
            raise Refused(410, f"{name} was deleted", headers=_validators(stored))
        if not stored.gzipped:
            raise Refused(503, f"{name} is being published", headers={"Retry-After": "5"})
        return stored

    def _answer(self, request: Request, stored: StoredResource, form: Form) -> Response:
        headers = _validators(stored) | _VARY
        if is_unchanged(stored, request.headers):
            return Response(status_code=NOT_MODIFIED, headers=headers)
        media_type = MEDIA_TYPES[self._fhir]
        if not form.is_stored:
            resource = subset(orjson.loads(stored.content), form, self._fhir)
            return Response(encoded(resource, pretty=form.pretty), headers=headers, media_type=media_type)
        if takes_gzip(request.headers):
            headers["Content-Encoding"] = "gzip"
            return Response(stored.gzipped, headers=headers, media_type=media_type)
        return Response(stored.content, headers=headers, media_type=media_type)


def self_url(request: Request, base: str) -> str:
    """Return the address of a request, as others reach this server."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    query = request.url.query
    return f"{base}{path}?{query}" if query else f"{base}{path}"


def check_type(fhir: str, kind: str) -> None:
    """Raise Refused where a version has no resources of a type here."""
    known = types_of(fhir)
    if kind not in known:
        raise Refused(404, f"{kind[:100]}: not served; {fhir} has {', '.join(known)}", "not-supported")


def _validators(stored: StoredResource) -> dict[str, str]:
    """Return ETag and, where it is known, Last-Modified (R4 3.1.0.1.4)."""
    etag = {"ETag": f'W/"{stored.version}"'}
    changed = stored.changed // 1000
    return etag | ({"Last-Modified": formatdate(changed, usegmt=True)} if changed else {})


def is_unchanged(stored: StoredResource, headers: Mapping[str, str]) -> bool:
    """Tell whether a client has this version already (RFC 9110 Sections 13.1.2, 13.1.3)."""
    if (matches := headers.get("if-none-match")) is not None:
        tags = [tag.strip().removeprefix("W/").strip('"') for tag in matches.split(",")]
        return "*" in tags or str(stored.version) in tags
    since = headers.get("if-modified-since")
    if not since or not stored.changed:
        return False
    try:
        return stored.changed // 1000 <= parsedate_to_datetime(since).timestamp()
    except (ValueError, OverflowError):
        return False


def takes_gzip(headers: Mapping[str, str]) -> bool:
    """Tell whether a client takes gzip (RFC 9110 Section 12.5.3)."""
    weights: dict[str, float] = {}
    for each in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = each.replace(" ", "").partition(";q=")
        try:
            weights[name] = float(weight) if weight else 1.0
        except ValueError:
            weights[name] = 0.0
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _since(parameters: Parameters) -> int:
    """Return _since in milliseconds since 1970; 0: there is none."""
    from index.publication.terms.dates import BadDate, interval

    given = dict(parameters).get("_since")
    if not given:
        return 0
    try:
        return interval(given).instant[0]
    except BadDate as error:
        raise Refused(400, f"_since: {error}") from error
