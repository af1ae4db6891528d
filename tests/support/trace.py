"""System calls of a daemon, recorded by strace and read back."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.sender import COMMAND, DATA

# The calls by which the daemon and SQLite change files, make them durable, or answer.
CALLS = (
    "openat,write,pwrite64,ftruncate,rename,unlink,unlinkat,mkdir,rmdir,fsync,fdatasync,syncfs,sendto,sendmsg"
)

_LINE = re.compile(
    r"(?P<process>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<call>\w+)\()(?P<rest>.*)", re.DOTALL
)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_RESULT = re.compile(r"\)\s+= (-?\d+)(.*)$")
_UNFINISHED = " <unfinished ...>"

# PS3.7 Section 9.3.1.2: elements of a C-STORE-RSP.
_UID = re.compile(rb"\x00\x00\x00\x10..\x00\x00([0-9.]+)", re.DOTALL)
_STATUS = re.compile(rb"\x00\x00\x00\x09\x02\x00\x00\x00(..)", re.DOTALL)


def strace(output: Path, *options: str, calls: str = CALLS, strings: int = 256) -> tuple[str, ...]:
    """Return a prefix that runs a command under strace; the command stays the process that is waited for."""
    quiet = (
        "strace",
        "-D",
        "-f",
        "-y",
        "-qq",
        "-s",
        str(strings),
        "-e",
        f"trace={calls}",
        "-e",
        "signal=none",
    )
    return (*quiet, *options, "-o", str(output))


@dataclass(slots=True)
class Call:
    """One system call. `begin` and `end` are positions in the order of all; `end` is infinite while it lasts.

    `path` is what its descriptor stands for, `strings` its text arguments. `faked`: it was injected.
    """

    name: str
    begin: int
    path: str
    strings: tuple[bytes, ...]
    arguments: str
    end: float = float("inf")
    result: int = -1
    opened: str = ""
    faked: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether it was done: an injected success does nothing."""
        return self.result >= 0 and not self.faked


def read(output: Path) -> list[Call]:
    """Return the recorded calls in the order of their beginning."""
    calls: list[Call] = []
    running: dict[str, Call] = {}
    with output.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines):
            found = _LINE.match(line.rstrip("\n"))
            if not found:
                continue
            rest = found["rest"]
            if found["resumed"]:
                call = running.pop(found["process"], None)
                if call is None:
                    continue
            else:
                call = _begin(found["call"], number, rest.removesuffix(_UNFINISHED))
                calls.append(call)
                if rest.endswith(_UNFINISHED):
                    running[found["process"]] = call
                    continue
            _finish(call, number, rest)
    return calls


def _begin(name: str, number: int, rest: str) -> Call:
    path = _DESCRIPTOR.match(rest)
    strings = tuple(codecs.escape_decode(text)[0] for text in _STRING.findall(rest))  # type: ignore[attr-defined]
    tail = rest.rpartition('"')[2]
    return Call(name, number, path[1] if path else "", strings, tail)


def _finish(call: Call, number: int, rest: str) -> None:
    result = _RESULT.search(rest)
    if result is None:
        return
    call.end, call.result = number, int(result[1])
    call.faked = "INJECTED" in result[2]
    opened = re.match(r"<([^>]*)>", result[2])
    call.opened = opened[1] if opened else ""


def answers(calls: list[Call]) -> Iterator[tuple[int, str, int]]:
    """Yield of each C-STORE-RSP when its sending began, its SOP Instance UID and its status."""
    for call in calls:
        if (
            call.name not in ("sendto", "sendmsg")
            or not call.strings
            or call.strings[0][:1] != bytes((DATA,))
        ):
            continue
        content = call.strings[0]
        uid, status = _UID.search(content), _STATUS.search(content)
        if content[11] & COMMAND and uid and status:
            yield call.begin, uid[1].decode(), int.from_bytes(status[1], "little")
