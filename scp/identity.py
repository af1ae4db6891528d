"""User identity negotiation (PS3.7 Section D.3.3.7): user names, with passcodes as scrypt hashes in a file.

A line of the file is `name:scrypt$N$r$p$salt$hash` (base64), as `imagingstudyd password NAME` prints it, or
`name:` alone for users who may come without a passcode. # begins a comment.
"""

import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path

# PS3.7 Table D.3-14, User-Identity-Type.
USERNAME = 1
USERNAME_AND_PASSCODE = 2

# RFC 7914 Section 2: about 16 MB and 50 ms for each guess.
COST, BLOCK_SIZE, PARALLELISM = 2**14, 8, 1
SALT_LENGTH = 16
# scrypt with parameters beyond this is a mistake or worse; in bytes.
MEMORY_LIMIT = 128 * 1024**2


class Users:
    """The users of one file. A new file makes a new one."""

    def __init__(self, file: Path) -> None:
        """Read the file. Raises ValueError that names every line at fault."""
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error
        faults = []
        self._hashes: dict[str, tuple[int, int, int, bytes, bytes] | None] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, colon, stored = line.strip().partition(":")
            try:
                if not colon or not name:
                    raise ValueError("not NAME:HASH")  # noqa: TRY301  reported with its line below
                self._hashes[name] = _parse(stored) if stored else None
            except ValueError as error:
                # Never the line itself: it may hold a passcode by mistake.
                faults.append(f"{file}:{number}: {error}")
        if faults:
            raise ValueError("; ".join(faults) + "; allowed is what `imagingstudyd password NAME` prints")

    def verify(self, kind: int | None, name: bytes, passcode: bytes) -> bool:
        """Tell whether a user is who they say. Kinds other than user names are never verified."""
        if kind not in (USERNAME, USERNAME_AND_PASSCODE):
            return False
        user = name.decode("utf-8", "replace").strip()
        if user not in self._hashes:
            return False
        stored = self._hashes[user]
        if stored is None:
            return kind == USERNAME
        cost, block, parallelism, salt, expected = stored
        given = _scrypt(passcode, salt, cost, block, parallelism, len(expected))
        return kind == USERNAME_AND_PASSCODE and hmac.compare_digest(expected, given)


def hashed(passcode: str) -> str:
    """Return a passcode as the file of users holds it."""
    salt = os.urandom(SALT_LENGTH)
    digest = _scrypt(passcode.encode(), salt, COST, BLOCK_SIZE, PARALLELISM, 32)
    encoded = "$".join(base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return f"scrypt${COST}${BLOCK_SIZE}${PARALLELISM}${encoded}"


def _scrypt(passcode: bytes, salt: bytes, cost: int, block: int, parallelism: int, length: int) -> bytes:
    return hashlib.scrypt(
        passcode, salt=salt, n=cost, r=block, p=parallelism, dklen=length, maxmem=MEMORY_LIMIT
    )


def _parse(stored: str) -> tuple[int, int, int, bytes, bytes]:
    try:
        scheme, *numbers, salt, digest = stored.split("$")
        cost, block, parallelism = map(int, numbers)
        parts = base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
        if scheme != "scrypt" or not parts[1]:
            raise ValueError("not scrypt")  # noqa: TRY301  any mistake is the same one
        _scrypt(b"", parts[0], cost, block, parallelism, len(parts[1]))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise ValueError("not a hash by scrypt") from error
    return cost, block, parallelism, *parts
