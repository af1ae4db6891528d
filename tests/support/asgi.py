"""An ASGI application called as a server calls it, without a socket: any bytes can be sent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

# Seconds; a bound for machines that are many times slower: an answer that takes longer never comes.
PATIENCE = 120


@dataclass
class Answer:
    """What came of a request; `status` 0: the application has answered nothing."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


class Caller:
    """Calls an application, in one event loop."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """End the loop."""
        self._runner.close()

    def ask(
        self,
        method: str,
        path: str,
        query: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: Sequence[bytes] = (),
    ) -> Answer:
        """Return the answer to a request; `path` is percent-encoded. Raises what the application raises."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query,
            "root_path": "",
            "headers": list(headers),
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8104),
            "state": {},
        }
        return self._runner.run(asyncio.wait_for(self._call(scope, list(body)), PATIENCE))

    async def _call(self, scope: dict[str, Any], body: list[bytes]) -> Answer:
        answer, gone = Answer(), asyncio.Event()
        left = body or [b""]

        async def receive() -> Message:
            if left:
                return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {
                    name.decode("latin_1").lower(): value.decode("latin_1")
                    for name, value in message["headers"]
                }
                # A stream of events has no end: its reader goes.
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    gone.set()
            else:
                answer.content += message.get("body", b"")

        await self._app(scope, receive, send)
        return answer
