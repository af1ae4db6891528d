"""search: GET with parameters, or POST to _search (R4 and R5 3.2.1, DSTU2 2.1.1)."""

import gzip
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from index.facade import Index
from index.publication.feed import LEVEL
from index.publication.resources import StoredResource
from index.publication.searching.resource_search import Page, Search
from index.publication.searching.values import BadSearch
from index.web.fhir.bundles import Bundle, with_meta
from index.web.fhir.forms import Form, Parameters, form_of, subset
from index.web.fhir.outcomes import MEDIA_TYPES, Refused, issue, outcome_resource
from index.web.fhir.reading import check_type, takes_gzip
from index.web.fhir.search_request import POSITION, SearchRequest, is_strict, written

LARGEST_FORM = 64 * 1024
"""Bytes of a form that is posted to _search."""
_FORM = "application/x-www-form-urlencoded"
_VARY = {"Vary": "Accept, Accept-Encoding, Prefer"}


class Searching:
    """Answers searches of one FHIR version."""

    def __init__(self, index: Index, fhir: str) -> None:
        self._search = index.resource_search
        self._fhir = fhir

    def get(self, request: Request, base: str) -> Response:
        """Answer a search by GET."""
        return self._answer(request, request.query_params.multi_items(), base)

    async def post(self, request: Request, base: str) -> Response:
        """Answer a search by POST: parameters of the address and of the form count alike."""
        given = request.query_params.multi_items() + await _form(request)
        return await run_in_threadpool(self._answer, request, given, base)

    def _answer(self, request: Request, given: Parameters, base: str) -> Response:
        kind = request.path_params["type"]
        check_type(self._fhir, kind)
        form = form_of(given, request.headers, self._fhir)
        asked = SearchRequest(self._search.database, self._fhir, kind, base)
        try:
            asked.hear(given)
        except BadSearch as error:
            raise Refused(400, str(error)) from error
        if asked.ignored and is_strict(request.headers.getlist("prefer")):
            raise Refused(400, "; ".join(asked.ignored), "not-supported")
        count = 0 if form.summary == "count" else asked.count
        page = self._search.find(Search(self._fhir, kind, asked.conditions, asked.order, asked.after, count))
        bundle = self._bundle(page, asked, form, base)
        content = bundle.encoded(
            pretty=form.pretty, total=page.total if asked.has_total or not count else None
        )
        headers = dict(_VARY)
        if takes_gzip(request.headers):
            content = gzip.compress(content, LEVEL)
            headers["Content-Encoding"] = "gzip"
        return Response(content, headers=headers, media_type=MEDIA_TYPES[self._fhir])

    def _bundle(self, page: Page, asked: SearchRequest, form: Form, base: str) -> Bundle:
        address = f"{base}/{asked.type}"
        bundle = Bundle(self._fhir, "searchset", _link(address, asked.used, asked.after), base)
        if page.next:
            bundle.link("next", _link(address, asked.used, page.next))
        for one in page.found:
            self._add(bundle, one, form, "match")
        if page.found:
            # _elements is about the resources that were searched (R4 3.1.1.5.9).
            whole = Form(form.pretty, form.summary)
            others = self._search.included(page, asked.includes) if asked.includes else []
            for parameter in asked.reverse_includes:
                others += self._search.referring(page, parameter)
            there = {(one.type, one.name) for one in page.found}
            for one in others:
                if (one.type, one.name) not in there:
                    there.add((one.type, one.name))
                    self._add(bundle, one, whole, "include")
        notes = [issue("not-supported", text, "warning", self._fhir) for text in asked.ignored]
        if not self._search.is_complete():
            why = "some resources of an earlier version are not searched yet; this takes some hours at most"
            notes.append(issue("incomplete", why, "warning", self._fhir))
        if notes and form.summary != "count":
            bundle.add("", outcome_resource(*notes), "outcome")
        return bundle

    def _add(self, bundle: Bundle, one: StoredResource, form: Form, mode: str) -> None:
        content = with_meta(one.content, one.version, one.changed)
        whole = orjson.Fragment(content) if form.is_whole else None
        resource = whole or subset(orjson.loads(content), form, self._fhir)
        bundle.add(f"{one.type}/{one.name}", resource, mode)


def _link(address: str, used: Parameters, after: tuple[object, int] | None) -> str:
    parameters = [*used, (POSITION, written(after))] if after else used
    return f"{address}?{urlencode(parameters)}" if parameters else address


async def _form(request: Request) -> Parameters:
    """Return the parameters of a posted form. Raises Refused."""
    media_type = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise Refused(413, f"the form has more than {LARGEST_FORM} bytes")
    if body and media_type != _FORM:
        raise Refused(415, f"{media_type[:100]}: _search takes {_FORM}")
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
