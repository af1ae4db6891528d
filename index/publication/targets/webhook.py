"""Webhooks: an address is told of each study that has changed, by signed messages (standardwebhooks.com).

The id of a message stays the same when it is sent again: a receiver knows what it has had already.
"""

import base64
import binascii
import hashlib
import hmac
import time
import uuid
from dataclasses import replace
from typing import Any

import orjson

from index.publication.targets.http.answers import Action, Result, judge
from index.publication.targets.http.authorization import AuthorizationFailed, secret
from index.publication.targets.http.client import NoAnswer, TargetClient
from index.publication.targets.knowledge import Current
from index.publication.targets.outbox import Pending
from index.publication.targets.settings import TargetSettings

_PREFIX = "whsec_"
_SUCCESS = 2


def tell(
    client: TargetClient,
    settings: TargetSettings,
    pending: Pending,
    study: Current | None,
    complete: tuple[int, str] | None,
) -> Result:
    """Tell of a study as it is now; None: it is deleted. Raises NoAnswer.

    `complete`: number and reason of the entry of the feed that says that it is.
    """
    data: dict[str, Any] = {
        "fhir": settings.version,
        "resourceType": pending.type,
        "id": pending.name,
        "number": pending.number,
    }
    if study and settings.payload == "resource":
        data["resource"] = orjson.loads(study.content)
    change = "updated" if study else "deleted"
    if complete:
        number, data["complete"] = complete
        change = "complete" if number == pending.number else change
    kind = f"{pending.type}.{change}"
    message = uuid.uuid5(
        uuid.NAMESPACE_URL, f"{settings.name}/{pending.type}/{pending.name}/{pending.number}"
    )
    return send(client, settings, str(message), kind, data)


def send(
    client: TargetClient, settings: TargetSettings, message: str, kind: str, data: dict[str, Any]
) -> Result:
    """Send a message, signed where there is a secret. Raises NoAnswer."""
    now = int(time.time())
    body = orjson.dumps({"type": kind, "timestamp": _iso(now), "data": data})
    headers = {"Content-Type": "application/json", "webhook-id": message, "webhook-timestamp": str(now)}
    try:
        key = secret(settings)
    except AuthorizationFailed as error:
        raise NoAnswer(str(error)) from error
    if key:
        headers["webhook-signature"] = signature(key, message, now, body)
    answer = client.request("POST", "", body, **headers)
    if answer.status // 100 == _SUCCESS:
        return Result(Action.DONE)
    result = judge(answer)
    return replace(result, action=Action.GIVE_UP) if result.action is Action.SPLIT else result


def signature(key: str, message: str, at: int, body: bytes) -> str:
    """Return the signature of a message: HMAC-SHA256 of id, time and body."""
    content = f"{message}.{at}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(_key(key), content, hashlib.sha256)).decode()}"


def _key(key: str) -> bytes:
    """Return the bytes of a secret: `whsec_` and base64, or any text."""
    if key.startswith(_PREFIX):
        try:
            return base64.b64decode(key.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            pass
    return key.encode()


def _iso(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
