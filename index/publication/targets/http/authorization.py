"""How we are known at a target: the headers of a request, and the tokens that they need."""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

from index.publication.targets.settings import TargetSettings, credential

if TYPE_CHECKING:
    import httpx


class AuthorizationFailed(Exception):
    """There is no token, or its file cannot be read. The text has no secret."""


class Authorization:
    """The headers of one target. `client` returns what tokens are asked for with."""

    def __init__(self, settings: TargetSettings, client: "Callable[[], httpx.Client]") -> None:
        self._settings = settings
        self._client = client

    def headers(self) -> dict[str, str]:
        """Return the headers that a request needs. Raises AuthorizationFailed."""
        settings = self._settings
        if settings.authorization == "basic":
            pair = f"{settings.client}:{self._secret()}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        if settings.authorization == "bearer":
            return {"Authorization": f"Bearer {self._secret()}"}
        return {}

    def refused(self) -> bool:
        """The server has refused our token; return whether another one may be had."""
        return False

    def _secret(self) -> str:
        settings = self._settings
        if settings.secret:
            return settings.secret.get_secret_value()
        if settings.secret_file is None:
            return ""
        try:
            return credential(settings.secret_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AuthorizationFailed(f"{settings.secret_file}: cannot be read: {error}") from error
