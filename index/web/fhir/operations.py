"""Operations that hand out a study or a patient as one Bundle: `$bundle` and `$everything`."""

from collections.abc import Callable, Iterator

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from index.errors import NotExpressible, NotFound
from index.facade import Index
from index.web.fhir.bundles import with_meta
from index.web.fhir.outcomes import MEDIA_TYPES, Refused

Base = Callable[[Request], str]


class Operations:
    """The operations of one FHIR version; `base` returns its address, as a caller reaches it."""

    def __init__(self, index: Index, fhir: str, base: Base) -> None:
        self._index = index
        self._fhir = fhir
        self._base = base

    def bundle(self, request: Request) -> Response:
        """Return a study with all that it refers to, as a transaction for any other server."""
        uid = request.path_params["id"]
        try:
            content, _ = self._index.resource(uid, self._fhir, bundle=True)
        except (NotFound, NotExpressible) as error:
            raise Refused(404, f"ImagingStudy/{uid[:100]}: {error}") from error
        return Response(content, media_type=MEDIA_TYPES[self._fhir])

    def everything(self, request: Request) -> Response:
        """Return a patient, their studies and what these refer to (Patient-operation-everything)."""
        name = request.path_params["id"]
        found = self._index.resources.of_patient(self._fhir, name)
        if not found:
            raise Refused(404, f"Patient/{name[:100]}: there is none")
        content = self._bundle(found, self._base(request))
        return StreamingResponse(content, media_type=MEDIA_TYPES[self._fhir])

    def _bundle(self, found: list[tuple[str, str]], base: str) -> Iterator[bytes]:
        """Yield a searchset Bundle, one resource in memory at a time; none that was deleted meanwhile."""
        yield b'{"resourceType":"Bundle","type":"searchset","entry":['
        separator = b""
        for kind, name in found:
            stored = self._index.resources.read(self._fhir, kind, name)
            if stored is None or not stored.gzipped:
                continue
            url = orjson.dumps(f"{base}/{kind}/{name}")
            resource = with_meta(stored.content, stored.version, stored.changed)
            yield b'%b{"fullUrl":%b,"resource":%b,"search":{"mode":"match"}}' % (separator, url, resource)
            separator = b","
        yield b"]}\n"
