"""Search (QIDO-RS, PS3.18 Section 10.6): answered from the index, by the matching of C-FIND."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from index.query.charsets import UTF_8
from index.query.information_models import UNIQUE_KEYS, Level
from index.query.value_matching import BadIdentifier
from index.web.dicomweb.formats import multipart
from index.web.dicomweb.formats.dicom_json import JsonEncoder, Model
from index.web.dicomweb.formats.media_types import JSON, XML, choose
from index.web.dicomweb.formats.native_xml import native_model
from index.web.dicomweb.responses import (
    BAD_REQUEST,
    NOT_ACCEPTABLE,
    Refused,
    Threads,
    accepted_by,
    warnings,
)
from index.web.dicomweb.search_parameters import RETURNED, BadParameter, Search, read_search

if TYPE_CHECKING:
    from index.query.queries import Queries

NO_CONTENT = 204
# Not of the standard: by it viewers show the number of pages.
TOTAL_COUNT = "X-Total-Count"
_PLAIN_JSON = "application/json"
_LEVEL, _RETRIEVE_URL = "00080052", "00081190"
# The step of a URL at each level.
STEPS = {Level.STUDY: "studies", Level.SERIES: "series", Level.IMAGE: "instances"}


class SearchService:
    """Answers searches. `retrieve_aet`: the AE title from which results can be retrieved."""

    def __init__(self, queries: "Queries", retrieve_aet: str, threads: Threads) -> None:
        self._queries = queries
        self._retrieve_aet = retrieve_aet
        self._threads = threads

    def endpoint(self, level: Level, base_url: Callable[[Request], str]) -> Any:
        """Return the endpoint of a search for this level."""

        async def search(request: Request) -> Response:
            media_type = choose(accepted_by(request), (JSON, _PLAIN_JSON, XML))
            if media_type is None:
                raise Refused(NOT_ACCEPTABLE, f"search results are {JSON}, or multipart/related of {XML}")
            try:
                asked = read_search(level, _above(request.path_params), request.query_params.multi_items())
            except BadParameter as error:
                raise Refused(BAD_REQUEST, str(error)) from error
            base = base_url(request)
            results, is_cut_short, total = await self._threads.run(self._results, asked, base)
            texts = list(asked.warnings)
            if is_cut_short:
                texts.append("There are additional results that can be requested")
            headers = {} if total is None else {TOTAL_COUNT: str(total)}
            return _response(results, media_type, {**headers, **warnings(base, texts)})

        return search

    def _results(self, asked: Search, base: str) -> tuple[list[Model], bool, int | None]:
        """Return the results, whether there are more, and how many in all where that is known at once."""
        from index.query.information_models import STUDY_ROOT
        from index.query.study_query import QueryOptions

        if not asked.limit:
            return [], False, None
        options = QueryOptions(
            STUDY_ROOT,
            self._retrieve_aet,
            asked.limit,
            charset=UTF_8,
            ignore_accents=asked.is_fuzzy,
            relational=True,
            offset=asked.offset,
        )
        try:
            query = self._queries.find(asked.identifier, options)
            encoder = JsonEncoder()
            results = [
                _result(encoder.encode(dataset), asked.level, base)
                for dataset in query
                if dataset is not None
            ]
        except BadIdentifier as error:
            raise Refused(BAD_REQUEST, str(error)) from error
        if query.is_cut_short or not results:
            return results, query.is_cut_short, query.total()
        return results, False, asked.offset + len(results)


def _above(path: Mapping[str, Any]) -> dict[str, str]:
    """Return the UIDs of a path, by keyword."""
    names = {"study": UNIQUE_KEYS[Level.STUDY], "series": UNIQUE_KEYS[Level.SERIES]}
    return {keyword: path[name] for name, keyword in names.items() if name in path}


def _result(model: Model, level: Level, base: str) -> Model:
    """Return a result. Only what the standard asks for stands there without a value too."""
    required = {_tag(keyword) for keyword in RETURNED[level]}
    url = base
    for above in list(Level)[1 : level.depth + 1]:
        (uid,) = model[_tag(UNIQUE_KEYS[above])].get("Value", ("",))
        url += f"/{STEPS[above]}/{uid}"
    kept = {
        tag: element
        for tag, element in model.items()
        if tag != _LEVEL and (tag in required or len(element) > 1)
    }
    kept[_RETRIEVE_URL] = {"vr": "UR", "Value": [url]}
    return dict(sorted(kept.items()))


def _tag(keyword: str) -> str:
    from index.dicom.value_rules import tag_and_vr

    return f"{tag_and_vr(keyword)[0]:08X}"


def _response(results: list[Model], media_type: str, headers: dict[str, str]) -> Response:
    if not results:
        return Response(status_code=NO_CONTENT, headers=headers)
    if media_type != XML:
        return Response(orjson.dumps(results), headers=headers, media_type=media_type)
    boundary = multipart.new_boundary()
    parts = (({"Content-Type": XML}, (native_model(result),)) for result in results)
    body = b"".join(multipart.multipart(boundary, parts))
    return Response(body, headers=headers, media_type=multipart.content_type(XML, boundary))
