"""From presentation data values to messages (PS3.8 Annex E, PS3.7 Section 6.3.1): order and bounds."""

from collections.abc import Callable
from typing import Protocol

from scp.wire.command_set import Command, Malformed, parse
from scp.wire.pdus import COMMAND, LAST, Disorder

# The largest command set, in bytes. The longest of PS3.7 holds a few UIDs, titles and lists of tags.
COMMAND_LENGTH = 64 * 1024


class Operation(Protocol):
    """What a message asks for, while its data set comes in. Exactly one of `end` and `discard` ends it."""

    def write(self, fragment: memoryview) -> None:
        """Take the data set's next bytes."""

    def end(self) -> None:
        """The message is whole: do it."""

    def discard(self, reason: str) -> None:
        """The message will never be whole."""


class MessageAssembler:
    """Puts messages together, one after the other.

    `begin` is called with the context and the command as soon as the command set is whole.
    """

    def __init__(self, begin: Callable[[int, Command], Operation]) -> None:
        self._begin = begin
        self._context = 0
        self._control = 0
        self._command = bytearray()
        self._operation: Operation | None = None

    @property
    def is_idle(self) -> bool:
        """Tell whether no message has begun."""
        return self._operation is None and not self._context

    def open(self, context: int, control: int) -> None:
        """A fragment begins. Raises Disorder when none like it may come now."""
        if self._context and context != self._context:
            raise Disorder(f"a fragment of context {context} within a message of context {self._context}")
        if bool(control & COMMAND) != (self._operation is None):
            kind = "command" if control & COMMAND else "data set"
            raise Disorder(f"a {kind} fragment where the other kind belongs")
        self._context = context
        self._control = control

    def write(self, fragment: memoryview) -> None:
        """Take a part of the fragment that was opened last. Raises Disorder when it gets too long."""
        if self._operation is not None:
            self._operation.write(fragment)
        elif len(self._command) + len(fragment) > COMMAND_LENGTH:
            raise Disorder(f"a command set of more than {COMMAND_LENGTH} bytes")
        else:
            self._command += fragment

    def close(self) -> None:
        """The fragment is whole. Raises Disorder when it ends a command set that is none."""
        if not self._control & LAST:
            return
        if self._operation is None:
            encoded = bytes(self._command)
            self._command.clear()
            try:
                command = parse(encoded)
            except Malformed as error:
                raise Disorder(str(error)) from error
            self._operation = self._begin(self._context, command)
            if command.has_data_set:
                return
        operation, self._operation, self._context = self._operation, None, 0
        operation.end()

    def discard(self, reason: str) -> None:
        """Nothing more will come."""
        operation, self._operation, self._context = self._operation, None, 0
        if operation is not None:
            operation.discard(reason)
