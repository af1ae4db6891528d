"""User identity negotiation (PS3.7 Section D.3.3.7): user names, with passcodes as scrypt hashes in a file.

A line of the file is `name:scrypt$N$r$p$salt$hash` (base64), as `imagingstudyd password NAME` prints it, or
`name:` alone for a user without a passcode. # begins a comment.
"""

import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path
from typing import NamedTuple

# PS3.7 Table D.3-14, User-Identity-Type.
USERNAME = 1
USERNAME_AND_PASSCODE = 2

# RFC 7914 Section 2: about 16 MB and 50 ms for each attempt.
COST, BLOCK_SIZE, PARALLELISM = 2**14, 8, 1
SALT_LENGTH = 16
# The most memory of scrypt with parameters from the file, in bytes.
MEMORY_LIMIT = 128 * 1024**2


class _Hash(NamedTuple):
    cost: int
    block_size: int
    parallelism: int
    salt: bytes
    digest: bytes

    def matches(self, passcode: bytes) -> bool:
        given = _scrypt(passcode, self.salt, self.cost, self.block_size, self.parallelism, len(self.digest))
        return hmac.compare_digest(self.digest, given)


class Users:
    """The users of one file."""

    def __init__(self, file: Path) -> None:
        """Read the file. Raises ValueError that names every faulty line."""
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error
        faults = []
        self._hashes: dict[str, _Hash | None] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, colon, stored = line.strip().partition(":")
            try:
                if not colon or not name:
                    raise ValueError("not NAME:HASH")  # noqa: TRY301  reported with its line below
                self._hashes[name] = _parse(stored) if stored else None
            except ValueError as error:
                # Without the line itself, which may hold a passcode by mistake.
                faults.append(f"{file}:{number}: {error}")
        if faults:
            raise ValueError("; ".join(faults) + "; allowed is what `imagingstudyd password NAME` prints")
        self._secret = hashlib.sha256(text.encode()).digest()
        self._decoys = [stored for stored in self._hashes.values() if stored] or [_parse(hash_passcode(""))]

    def verify(self, kind: int | None, name: bytes, passcode: bytes) -> bool:
        """Return whether the name and passcode are right. Kinds other than user names are never verified.

        Every refusal takes the time of a wrong passcode: the time does not tell which names exist.
        """
        if kind not in (USERNAME, USERNAME_AND_PASSCODE):
            return False
        user = name.decode("utf-8", "replace").strip()
        stored = self._hashes.get(user)
        if kind == USERNAME and stored is None and user in self._hashes:
            return True
        matches = (stored or self._decoy(user)).matches(passcode)
        return matches and stored is not None and kind == USERNAME_AND_PASSCODE

    def _decoy(self, user: str) -> _Hash:
        """Return a hash to check for a user without one: always the same, since costs may differ."""
        number = hmac.digest(self._secret, user.encode(), "sha256")
        return self._decoys[int.from_bytes(number) % len(self._decoys)]


def hash_passcode(passcode: str) -> str:
    """Return the hash of a passcode as in the file of users."""
    salt = os.urandom(SALT_LENGTH)
    digest = _scrypt(passcode.encode(), salt, COST, BLOCK_SIZE, PARALLELISM, 32)
    encoded = "$".join(base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return f"scrypt${COST}${BLOCK_SIZE}${PARALLELISM}${encoded}"


def _scrypt(passcode: bytes, salt: bytes, cost: int, block: int, parallelism: int, length: int) -> bytes:
    return hashlib.scrypt(
        passcode, salt=salt, n=cost, r=block, p=parallelism, dklen=length, maxmem=MEMORY_LIMIT
    )


def _parse(stored: str) -> _Hash:
    try:
        scheme, *numbers, salt, digest = stored.split("$")
        cost, block, parallelism = map(int, numbers)
        parts = base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
        if scheme != "scrypt" or not parts[1]:
            raise ValueError("not scrypt")  # noqa: TRY301  all mistakes have one message
        _scrypt(b"", parts[0], cost, block, parallelism, len(parts[1]))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise ValueError("not a hash by scrypt") from error
    return _Hash(cost, block, parallelism, *parts)
