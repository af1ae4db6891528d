"""Bearer tokens (RFC 6750), of which a file holds the hashes.

A line of the file is `NAME:RIGHTS:sha256$HEX`; # begins a comment. A token has 256 random bits, so that one
plain SHA-256 protects it.
"""

import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from index.web.rights import Caller, Right

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_HASH = re.compile(r"sha256\$([0-9a-f]{64})")
_TOKEN_BYTES = 32
# In the log and in secret scanners: what such a text is.
_PREFIX = "isd_"
# Of the file, in bytes: 50,000 callers.
LARGEST = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A line of the file."""

    name: str
    rights: tuple[Right, ...]
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{','.join(self.rights)}:sha256${self.digest}"


def new_token(name: str, rights: tuple[Right, ...]) -> tuple[str, TokenLine]:
    """Return a new token, and the line of the file that lets its holder in. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: allowed are 1 to 64 of A-Z a-z 0-9 . _ @ -")
    token = _PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    return token, TokenLine(name, rights, _digest(token))


def parse_token(line: str) -> TokenLine:
    """Return what a line says. Raises ValueError, which does not repeat the line: it may hold a secret."""
    name, rights, stored = [*line.split(":"), "", ""][:3]
    found = _HASH.fullmatch(stored)
    if line.count(":") != 2 or not _NAME.fullmatch(name) or not found:  # noqa: PLR2004  three parts
        raise ValueError("not NAME:RIGHTS:sha256$HEX")
    try:
        return TokenLine(name, tuple(Right(one) for one in rights.split(",")), found[1])
    except ValueError:
        raise ValueError(f"rights {rights!r}: allowed are {', '.join(Right)}, joined by commas") from None


def token_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are no comments, each with its number. Raises ValueError."""
    try:
        with file.open("rb") as stored:
            content = stored.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise ValueError(f"{file}: more than {LARGEST} bytes")
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def check_tokens(file: Path) -> None:
    """Raise ValueError that names every faulty line."""
    faults, names = [], set()
    for number, line in token_lines(file):
        try:
            name = parse_token(line).name
            if name in names:
                raise ValueError(f"{name} has a line already")  # noqa: TRY301  reported with its line
            names.add(name)
        except ValueError as error:
            faults.append(f"{file}:{number}: {error}")
    if faults:
        raise ValueError("; ".join(faults))


class Tokens:
    """The tokens of one file, which is read again when it changes: one that is removed ends at once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._state: tuple[int, int, int] | None = None
        self._callers: dict[str, Caller] = {}

    def find(self, token: str) -> Caller | None:
        """Return who has a token; None where nobody has."""
        with self._lock:
            self._read_again()
            return self._callers.get(_digest(token))

    def _read_again(self) -> None:
        try:
            status = self._file.stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            if state == self._state:
                return
            lines = list(token_lines(self._file))
        except (OSError, ValueError) as error:
            if self._state != (0, 0, 0):
                log.error("tokens_not_read", error=str(error))  # noqa: TRY400  the reason says it all
            self._state, self._callers = (0, 0, 0), {}
            return
        self._state, self._callers = state, {}
        for number, line in lines:
            try:
                found = parse_token(line)
            except ValueError as error:
                log.error("token_line_faulty", line=number, error=str(error))  # noqa: TRY400
            else:
                self._callers[found.digest] = Caller(found.name, frozenset(found.rights))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
