"""The page of an index without a daemon: asked by function calls, as a caller with some rights."""

import asyncio
import html
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from index import Caller, Index, LiveState, Page, Right

ORIGIN = "http://127.0.0.1"
_TOKEN = re.compile(r'name="token" value="([^"]+)"')


class _As:
    """Says who calls, as the guard does."""

    def __init__(self, app: ASGIApp, caller: Caller) -> None:
        self._app = app
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["caller"] = self._caller
        await self._app(scope, receive, send)


class Pages:
    """The pages of an index."""

    def __init__(
        self, index: Index, rights: Collection[Right] = tuple(Right), live: LiveState | None = None
    ) -> None:
        caller = Caller("somebody", frozenset(rights), "" if rights else "nobody is known")
        self._app = _As(Starlette(routes=Page(index, live).routes()), caller)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Ask for a page."""
        return self._ask("GET", path, headers=headers)

    def send(
        self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a form as it is."""
        given = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._ask("POST", path, content=urlencode(fields), headers=given)

    def post(self, address: str, to: str = "", **fields: str) -> httpx.Response:
        """Open the page of a form and send it, there or `to` another path."""
        target = to or urlsplit(address).path
        opened = self.get(address)
        form = opened.text.partition(f'action="{target}"')[2]
        (token,) = _TOKEN.findall(form)[:1] or ["none"]
        return self.send(target, {"token": token, **fields})

    def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())


def said(response: httpx.Response) -> str:
    """Return what a page says was done, or why not."""
    found = re.search(r'class="(?:done|fault)"[^>]*>(.*?)</p>', response.text, re.DOTALL)
    return html.unescape(found[1]) if found else ""
