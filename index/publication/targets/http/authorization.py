"""How we are known at a target: the headers of a request, and the tokens that they need.

No text here has a secret: what fails names the file or the key of the configuration.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from index.publication.targets.settings import TargetSettings, credential

if TYPE_CHECKING:
    import httpx

# A token is not used in its last seconds, nor asked for again sooner after the server has refused it.
MARGIN_SECONDS = 30.0
# Of a token whose server does not say how long it is valid.
DEFAULT_SECONDS = 300.0
# SMART App Launch, Backend Services: at most five minutes.
ASSERTION_SECONDS = 240
_BEARER_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_OK = 200


class AuthorizationFailed(Exception):
    """There is no token, or its file cannot be read. The text has no secret."""


class Authorization:
    """The headers of one target. `client` returns what tokens are asked for with."""

    def __init__(self, settings: TargetSettings, client: "Callable[[], httpx.Client]") -> None:
        self._settings = settings
        self._client = client
        self._lock = threading.Lock()
        self._token = ""
        # On the monotonic clock.
        self._asked = self._expires = 0.0

    def headers(self) -> dict[str, str]:
        """Return the headers that a request needs. Raises AuthorizationFailed."""
        settings = self._settings
        if settings.authorization == "basic":
            return {"Authorization": _basic(settings.client, secret(settings))}
        if settings.authorization == "bearer":
            return {"Authorization": f"Bearer {secret(settings)}"}
        if settings.authorization in ("client-credentials", "smart-backend"):
            return {"Authorization": f"Bearer {self._current()}"}
        return {}

    def refused(self) -> bool:
        """The server has refused our token; return whether another one may be had."""
        with self._lock:
            is_old = bool(self._token) and time.monotonic() - self._asked > MARGIN_SECONDS
            self._token = ""
        return is_old

    def _current(self) -> str:
        with self._lock:
            if not self._token or time.monotonic() > self._expires - MARGIN_SECONDS:
                self._asked = time.monotonic()
                answer = self._ask()
                self._token = answer["access_token"]
                seconds = answer.get("expires_in")
                self._expires = self._asked + (
                    seconds if isinstance(seconds, int | float) else DEFAULT_SECONDS
                )
            return self._token

    def _ask(self) -> dict[str, Any]:
        """Ask for a token (RFC 6749 Section 4.4; SMART Backend Services: with RFC 7523)."""
        import httpx

        settings = self._settings
        form = {"grant_type": "client_credentials"} | ({"scope": settings.scope} if settings.scope else {})
        headers = {"Accept": "application/json"}
        if settings.authorization == "smart-backend":
            form |= {"client_assertion_type": _BEARER_ASSERTION, "client_assertion": assertion(settings)}
        else:
            # RFC 6749 Section 2.3.1.
            headers["Authorization"] = _basic(
                quote(settings.client, safe=""), quote(secret(settings), safe="")
            )
        try:
            answer = self._client().post(settings.token_url, data=form, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AuthorizationFailed(f"token_url gives no token: {error}") from error
        try:
            found = answer.json()
        except ValueError:
            found = None
        said = found if isinstance(found, dict) else {}
        if answer.status_code != _OK or not isinstance(said.get("access_token"), str):
            # RFC 6749 Section 5.2: a word of a list, and a text for a developer.
            words = [str(said[key]) for key in ("error", "error_description") if said.get(key)]
            why = ": ".join([f"token_url gives no token: {answer.status_code}", *words])
            raise AuthorizationFailed(f"{why}: check client, secret and scope")
        return said


def assertion(settings: TargetSettings) -> str:
    """Return a signed JWT that says who we are (SMART Backend Services, RFC 7523)."""
    try:
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import ECKey, RSAKey
    except ImportError as error:
        raise AuthorizationFailed("needs an extra: pip install imagingstudyd[smart]") from error
    text = read(str(settings.signing_key), settings.signing_key)
    try:
        content = json.loads(text) if text.startswith("{") else text
        try:
            key: RSAKey | ECKey = RSAKey.import_key(content)
        except (JoseError, ValueError, TypeError):
            key = ECKey.import_key(content)
        algorithm = (
            "RS384" if isinstance(key, RSAKey) else f"ES{'256' if key.curve_name == 'P-256' else '384'}"
        )
        now = int(time.time())
        claims = {"iss": settings.client, "sub": settings.client, "aud": settings.token_url}
        claims |= {"iat": now, "exp": now + ASSERTION_SECONDS, "jti": uuid.uuid4().hex}  # type: ignore[dict-item]
        header = {"alg": algorithm, "typ": "JWT", "kid": key.kid or key.thumbprint()}
        return jwt.encode(header, claims, key, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError, KeyError) as error:
        # The error may quote the key.
        why = f"{settings.signing_key}: is no private key of RSA or EC, as PEM or JWK"
        raise AuthorizationFailed(why) from error


def secret(settings: TargetSettings) -> str:
    """Return the secret of a target; one in a file is read anew. Raises AuthorizationFailed."""
    if settings.secret:
        return settings.secret.get_secret_value()
    return read("secret_file", settings.secret_file) if settings.secret_file else ""


def read(name: str, path: Any) -> str:
    """Return the text of a file, named by a key of the configuration. Raises AuthorizationFailed."""
    try:
        return credential(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise AuthorizationFailed(f"{name}: {path} cannot be read: {why}") from error


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
