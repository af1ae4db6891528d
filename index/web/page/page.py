"""The page: what arrives, what is there, what is wrong; and what an operator can do about it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from index.dicom.uids import is_uid
from index.errors import DatabaseFault, IndexFault, NotFound, NotKept
from index.facade import Index
from index.orders.by_hand import REQUIRED, SEXES, BadOrder, order_by_hand
from index.orders.listing import ListedOrder
from index.query.study_filter import BadFilter
from index.web.page.forms import BadForm, Forms
from index.web.page.header import header_text
from index.web.page.live import Broadcast, Snapshots
from index.web.page.live_state import LiveState, NothingLive
from index.web.page.operating import ACTIONS, Matching, Operating
from index.web.page.rendering import HEADERS, STATIC, Templates
from index.web.page.studies import StudyList, states
from index.web.page.study import VERSIONS, resource_view, study_view
from index.web.rights import Right, caller_of, needs

# Studies that the first page lists.
LATEST = 20
# Instances of one page of a series.
INSTANCES = 100
_STATUS = (
    (NotFound, 404),
    (BadFilter, 400),
    (BadForm, 400),
    (BadOrder, 400),
    (DatabaseFault, 503),
    (NotKept, 503),
    (IndexFault, 409),
    (OSError, 503),
)

Show = Callable[[Request], Response]
Act = Callable[[Request, Mapping[str, str]], "str | Response"]


class Page:
    """The pages of one daemon, as routes. `versions`: the FHIR versions that are published."""

    def __init__(
        self, index: Index, live: LiveState | None = None, versions: tuple[str, ...] = VERSIONS
    ) -> None:
        self._index = index
        self._live = live or NothingLive()
        self._versions = versions
        self._templates = Templates()
        self._forms = Forms()
        self._snapshots = Snapshots(index, self._live)
        self._broadcast = Broadcast(self._snapshots, self._templates, self._live)
        self._operating = Operating(index, self._live)
        self._matching = Matching(index)

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the page."""
        operate, write = Right.OPERATE, Right.WRITE
        matching = self._matching
        return [
            Route(STATIC + "/{name}", self._templates.static),
            Route("/live", needs(Right.READ)(self._stream)),
            self._page("/", self._start),
            self._page("/studies", self._studies),
            self._page("/studies/{study}", self._study),
            self._page("/studies/{study}/series/{series}", self._series),
            self._page("/studies/{study}/resources/{fhir}", self._resource),
            self._page("/instances/{instance}", self._instance),
            self._page("/worklist", self._worklist),
            self._page("/orders/new", self._new_order, write),
            self._form("/orders/new", self._add_order, write),
            self._page("/orders/{order:int}", self._order),
            self._page("/orders/{order:int}/remove", self._ask_to_remove, write),
            self._form("/orders/{order:int}/remove", lambda r, _: matching.remove(_order(r)), write),
            self._page("/studies/{study}/match", self._ask_to_match, operate),
            self._form("/studies/{study}/match", lambda r, f: matching.match(_study(r), f)),
            self._form("/studies/{study}/unmatch", lambda r, f: matching.undo(_study(r), f)),
            self._form("/studies/{study}/rematch", lambda r, f: matching.rematch(_study(r), f)),
            self._page("/operating", self._list_actions),
            self._page("/operating/{action}", self._ask, operate),
            self._form("/operating/{action}", self._do),
        ]

    def _page(self, path: str, show: Show, right: Right = Right.READ) -> Route:
        return Route(path, needs(right, self._templates.refusal)(self._guarded(show)))

    def _form(self, path: str, act: Act, right: Right = Right.OPERATE) -> Route:
        """Return the route of a form: what was done is said on a page of its own."""

        def do(request: Request, fields: Mapping[str, str]) -> Response:
            done = act(request, fields)
            return (
                done if isinstance(done, Response) else self._templates.page(request, "done.html", done=done)
            )

        def refused(request: Request, error: BadForm) -> Response:
            return self._templates.page(request, "error.html", 400, why=str(error))

        async def post(request: Request) -> Response:
            try:
                fields = await self._forms.read(request)
            except BadForm as error:
                return refused(request, error)
            return await anyio.to_thread.run_sync(self._guarded(do), request, fields)

        return Route(path, needs(right, self._templates.refusal)(post), methods=["POST"])

    def _guarded(self, show: Callable[..., Response]) -> Callable[..., Response]:
        """Turn what the index raises into a page that says so."""

        @wraps(show)
        def shown(request: Request, *arguments: Any) -> Response:
            try:
                return show(request, *arguments)
            except (IndexFault, OSError) as error:
                status = next(status for kind, status in _STATUS if isinstance(error, kind))
                return self._templates.page(request, "error.html", status, why=str(error))

        return shown

    async def _stream(self, _: Request) -> Response:
        if self._broadcast.is_full:
            return PlainTextResponse("too many pages are open\n", 503, {"Retry-After": "30"})
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._broadcast.events(), media_type="text/event-stream", headers=headers)

    def _start(self, request: Request) -> Response:
        studies = self._index.overview.studies(StudyList.newest(), size=LATEST)
        return self._templates.page(
            request,
            "start.html",
            now=self._snapshots.take(),
            studies=studies,
            total=self._index.overview.count(),
            states=states(),
        )

    def _studies(self, request: Request) -> Response:
        try:
            found, why, status = StudyList(self._index, request.query_params), "", 200
        except BadFilter as error:
            found, why, status = None, str(error), 400
        return self._templates.page(
            request,
            "studies.html",
            status,
            found=found,
            why=why,
            asked=dict(request.query_params),
            states=states(),
            total=self._index.overview.count() if found and found.is_everything else 0,
        )

    def _study(self, request: Request) -> Response:
        view = study_view(self._index, _study(request), self._versions)
        return self._templates.page(request, "study.html", view=view, story=view.story)

    def _series(self, request: Request) -> Response:
        study, series = _study(request), request.path_params["series"]
        after = _number(request.query_params.get("after", ""))
        found = self._index.overview.instances(study, series, after, INSTANCES + 1)
        return self._templates.page(
            request,
            "series.html",
            study=study,
            series=series,
            instances=found[:INSTANCES],
            more=found[INSTANCES - 1].id if len(found) > INSTANCES else 0,
        )

    def _resource(self, request: Request) -> Response:
        fhir, study = request.path_params["fhir"], _study(request)
        if fhir not in VERSIONS:
            raise NotFound(f"{fhir} is no FHIR version: allowed are {', '.join(VERSIONS)}")
        view = resource_view(self._index, study, fhir)
        return self._templates.page(request, "resource.html", view=view, study=study, fhir=fhir)

    def _instance(self, request: Request) -> Response:
        uid = request.path_params["instance"]
        study, series = self._index.overview.place(uid)
        found = next(self._index.retrieval.find_uid(uid).instances())
        with self._index.retrieval.open(found) as file:
            header = header_text(file)
        return self._templates.page(
            request, "instance.html", header=header, instance=found, study=study, series=series
        )

    def _worklist(self, request: Request) -> Response:
        today = datetime.now().astimezone()
        asked = request.query_params.get("date", "") or f"{today:%Y-%m-%d}"
        station = request.query_params.get("station", "").strip()
        try:
            date = datetime.strptime(asked, "%Y-%m-%d").strftime("%Y%m%d")  # noqa: DTZ007  the scanner's day
        except ValueError:
            raise BadFilter("date", f"{asked}: allowed is a date, as 2026-01-31") from None
        steps = self._index.overview.orders.scheduled(date, station)
        stations: dict[str, list[Any]] = {}
        for step in steps:
            stations.setdefault(step.station, []).append(step)
        return self._templates.page(
            request, "worklist.html", stations=stations, date=asked, station=station, steps=len(steps)
        )

    def _order(self, request: Request) -> Response:
        return self._templates.page(request, "order.html", order=self._listed(request))

    def _listed(self, request: Request) -> ListedOrder:
        """Return the order of an address. Raises NotFound."""
        found = self._index.orders.listed(_order(request))
        if not found:
            raise NotFound(f"order {_order(request)} is not in the index")
        return found[0]

    def _new_order(self, request: Request) -> Response:
        return self._order_form(request, {}, None)

    def _order_form(self, request: Request, given: Mapping[str, str], fault: BadOrder | None) -> Response:
        return self._templates.page(
            request,
            "new_order.html",
            400 if fault else 200,
            given=given,
            fault=fault,
            token=self._forms.token("/orders/new"),
            required=REQUIRED,
            sexes=SEXES,
        )

    def _add_order(self, request: Request, fields: Mapping[str, str]) -> str | Response:
        try:
            new = order_by_hand(fields)
        except BadOrder as error:
            return self._order_form(request, fields, error)
        order = self._index.orders.add(new)
        (listed,) = self._index.orders.listed(order)
        return f"Order {order} is in the worklist; its study is {listed.study_uid}."

    def _ask_to_remove(self, request: Request) -> Response:
        order = self._listed(request)
        path = f"/orders/{order.id}/remove"
        return self._templates.page(
            request, "remove_order.html", order=order, token=self._forms.token(path), target=path
        )

    def _ask_to_match(self, request: Request) -> Response:
        uid = _study(request)
        story = self._index.overview.story(uid)
        number = str(story.subject.patient.get("PatientID") or "")
        accession = str(story.subject.attributes.get("AccessionNumber") or "")
        candidates = self._index.overview.orders.candidates(number, accession)
        names = ("match", "unmatch", "rematch")
        tokens = {name: self._forms.token(f"/studies/{uid}/{name}") for name in names}
        return self._templates.page(
            request,
            "match.html",
            story=story,
            candidates=candidates,
            tokens=tokens,
        )

    def _list_actions(self, request: Request) -> Response:
        return self._templates.page(
            request,
            "operating.html",
            actions=ACTIONS.values(),
            verification=self._operating.verification,
            dead=self._index.outbox.listing.status(),
        )

    def _ask(self, request: Request) -> Response:
        action = ACTIONS.get(request.path_params["action"])
        if action is None:
            raise NotFound(f"there is no action {request.path_params['action']}")
        path = f"/operating/{action.name}"
        return self._templates.page(
            request,
            "ask.html",
            action=action,
            given=request.query_params,
            peers=self._live.peers(),
            routed=[one.peer for one in self._index.outbox.listing.status()],
            token=self._forms.token(path),
            target=path,
            verification=self._operating.verification,
        )

    def _do(self, request: Request, fields: Mapping[str, str]) -> str:
        action = request.path_params["action"]
        if action not in ACTIONS:
            raise NotFound(f"there is no action {action}")
        return self._operating.do(action, fields, caller_of(request).name)


def _study(request: Request) -> str:
    """Return the Study Instance UID of an address. Raises NotFound."""
    uid = str(request.path_params["study"])
    if not is_uid(uid):
        raise NotFound(f"{uid} is no Study Instance UID")
    return uid


def _order(request: Request) -> int:
    """Return the number of an order of an address; one that no order has where it is too large."""
    return min(int(request.path_params["order"]), 1 << 62)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0  # noqa: PLR2004  64 bits
