"""FHIR REST without a server: the face's routes, called as somebody who may read."""

from pathlib import Path

from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from index import Caller, Fhir, Index, Right
from index.imagingstudy.settings import FhirSettings
from support.filling import STORAGE, keep

BASE = "http://testserver/fhir"


class Called:
    """An application whose callers are known already: the guard is tested elsewhere."""

    def __init__(self, app: Starlette, rights: frozenset[Right]) -> None:
        self.app = app
        self.rights = rights

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["caller"] = Caller("a reader", self.rights)
        await self.app(scope, receive, send)


def client(index: Index, *rights: Right, public_url: str | None = None) -> TestClient:
    """Return a client that may do this much; without rights: read."""
    routes = Fhir(index, index._fhir.versions, public_url).routes()
    called = Called(Starlette(routes=routes), frozenset(rights or (Right.READ,)))
    return TestClient(called, raise_server_exceptions=False)


def published(data: Path, *datasets: Dataset, **settings: object) -> Index:
    """Return an open index that has published these instances."""
    with Index(data, STORAGE, fhir=FhirSettings(**settings)) as index:
        index.serve()
        for dataset in datasets:
            keep(index, dataset)
    index = Index(data, STORAGE, fhir=FhirSettings(**settings))
    index.publish()
    return index
