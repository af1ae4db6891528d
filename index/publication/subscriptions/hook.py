"""One notification to an endpoint: a POST, whose answer counts by its status. No redirect is followed."""

import ssl
import time

import httpx

from index.publication.subscriptions.definitions import Definition
from index.publication.targets.http.answers import Action, Result, judge, no_answer
from index.publication.targets.http.client import Answer, NoAnswer, as_no_answer

# Of an answer, in bytes: nobody reads it.
LONGEST_ANSWER = 64 * 1024
CONNECT_SECONDS = 10.0
_GONE = 410


class Hook:
    """Sends notifications. Safe to use from many threads."""

    def __init__(self) -> None:
        self._client: httpx.Client | None = None

    def send(self, definition: Definition, bundle: bytes) -> Result:
        """Send a Bundle (R5 subscription.html, "REST Hook"). Never raises for what the endpoint does.

        GIVE_UP: the endpoint wants no more (410). Nothing else is said by what is done about the failure.
        """
        headers = [*definition.headers, ("Content-Type", definition.media_type)]
        try:
            with as_no_answer(definition.timeout):
                answer = self._post(definition, bundle, headers)
        except NoAnswer as error:
            return no_answer(error)
        if answer.status == _GONE:
            return Result(Action.GIVE_UP, "410 Gone: the endpoint wants no more")
        # What it says is no resource of FHIR that is looked at, and may be a page.
        return Result(Action.DONE) if answer.status // 100 == 2 else judge(answer)  # noqa: PLR2004  RFC 9110

    def _post(self, definition: Definition, bundle: bytes, headers: list[tuple[str, str]]) -> Answer:
        timeout = httpx.Timeout(definition.timeout, connect=min(CONNECT_SECONDS, definition.timeout))
        stream = self._http().stream(
            "POST", definition.endpoint, content=bundle, headers=headers, timeout=timeout
        )
        until = time.monotonic() + definition.timeout
        with stream as response:
            size = 0
            for part in response.iter_raw():
                size += len(part)
                if size > LONGEST_ANSWER or time.monotonic() > until:
                    break
            return Answer(response.status_code, response.headers)

    def close(self) -> None:
        """Close its connections."""
        if self._client:
            self._client.close()

    def _http(self) -> httpx.Client:
        if self._client is None:
            # With the system's authorities, or those of SSL_CERT_FILE.
            context = ssl.create_default_context()
            self._client = httpx.Client(trust_env=False, follow_redirects=False, verify=context)
        return self._client
