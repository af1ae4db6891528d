"""Orders that come in as FHIR R4: a ServiceRequest with its Patient, alone or in a transaction Bundle.

They take the path of orders by HL7 and from files: index/orders. A Patient of a Bundle is part of its orders,
and is no resource of its own here.
"""

import uuid
from typing import Any

import anyio.to_thread
import orjson
from starlette.requests import Request
from starlette.responses import Response

from index.imagingstudy.values import fhir_id
from index.orders.fhir import BadResource, orders_of
from index.orders.records import NewOrder
from index.orders.service import Orders
from index.orders.store import key_of
from index.web.fhir.forms import encoded
from index.web.fhir.outcomes import MEDIA_TYPES, Refused, issue, outcome_resource

# A Bundle of some hundred orders, in bytes.
LARGEST = 1024 * 1024
_TYPES = ("application/fhir+json", "application/json", "application/json+fhir")
_TRANSACTIONS = ("transaction", "batch")
_MEDIA_TYPE = MEDIA_TYPES["r4"]


class OrderIntake:
    """Takes orders in. `base` is the address of R4, as a caller reaches it."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def create(self, request: Request, base: str) -> Response:
        """Take in a ServiceRequest (POST /ServiceRequest)."""
        resource = of_type(await resource_of(request), "ServiceRequest")
        if not resource.get("id") and not resource.get("identifier"):
            resource["id"] = str(uuid.uuid4())
        return await self._answer(resource, base)

    async def update(self, request: Request, base: str) -> Response:
        """Take in a ServiceRequest under its sender's id (PUT /ServiceRequest/ID)."""
        resource = of_type(await resource_of(request), "ServiceRequest")
        if resource.get("id") != request.path_params["id"]:
            raise Refused(400, "ServiceRequest.id: it must be the id in the address")
        return await self._answer(resource, base)

    async def transaction(self, request: Request, base: str) -> Response:
        """Take in all orders of a Bundle, or none (POST of the base)."""
        bundle = of_type(await resource_of(request), "Bundle")
        if bundle.get("type") not in _TRANSACTIONS:
            raise Refused(400, f"Bundle.type: allowed are {' and '.join(_TRANSACTIONS)}")
        taken = iter(await self._take(bundle))
        entries: list[dict[str, Any]] = []
        for entry in bundle["entry"]:
            if entry["resource"].get("resourceType") == "ServiceRequest":
                name, is_new = next(taken)
                status = "201 Created" if is_new else "200 OK"
                entries.append({"response": {"status": status, "location": f"{base}/{name}"}})
            else:
                note = outcome_resource(issue("informational", "part of the orders", "information"))
                entries.append({"response": {"status": "200 OK", "outcome": note}})
        answer = {"resourceType": "Bundle", "type": f"{bundle['type']}-response", "entry": entries}
        return Response(encoded(answer, pretty=False), media_type=_MEDIA_TYPE)

    async def _answer(self, resource: dict[str, Any], base: str) -> Response:
        ((name, is_new),) = await self._take(resource)
        headers = {"Location": f"{base}/{name}"}
        text = f"the order is {'taken' if is_new else 'changed'}; as {name} once a study is matched to it"
        content = encoded(outcome_resource(issue("informational", text, "information")), pretty=False)
        return Response(content, 201 if is_new else 200, headers, _MEDIA_TYPE)

    async def _take(self, resource: dict[str, Any]) -> list[tuple[str, bool]]:
        """Add or change the orders in a resource; return the name of each, and whether it is new."""

        def take(orders: list[NewOrder]) -> list[tuple[str, bool]]:
            known = [self._orders.store.is_known(order) for order in orders]
            self._orders.store.put_all(orders)
            return [
                (f"ServiceRequest/{fhir_id(key_of(order))}", not old)
                for order, old in zip(orders, known, strict=True)
            ]

        try:
            return await anyio.to_thread.run_sync(take, orders_of(resource))
        except BadResource as error:
            raise Refused(422, str(error), "processing") from error


def of_type(resource: Any, kind: str) -> dict[str, Any]:
    """Return a resource that is of this type. Raises Refused."""
    found = resource.get("resourceType") if isinstance(resource, dict) else None
    if found != kind:
        raise Refused(400, f"resourceType {str(found)[:100]!r}: {kind} is allowed here")
    made: dict[str, Any] = resource
    return made


async def resource_of(request: Request) -> Any:
    """Return the JSON of a request. Raises Refused."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in _TYPES:
        raise Refused(415, f"Content-Type {given[:100]!r}: allowed is {_TYPES[0]}")
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST:
            raise Refused(413, f"more than {LARGEST} bytes")
    try:
        return orjson.loads(content)
    except ValueError as error:
        raise Refused(400, f"no JSON: {error}") from error
