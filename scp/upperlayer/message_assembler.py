"""Messages, assembled from presentation data values (PS3.8 Annex E, PS3.7 Section 6.3.1)."""

from collections.abc import Callable
from typing import Protocol

from scp.wire.command_set import Command, InvalidCommandSet, parse
from scp.wire.pdus import COMMAND, LAST, InvalidMessage

# The largest command set, in bytes. Those of PS3.7 hold a few UIDs, AE titles and lists of tags.
COMMAND_LENGTH = 64 * 1024


class Operation(Protocol):
    """What is done with one message. Exactly one of `end` and `discard` is called at its end."""

    def write(self, fragment: memoryview) -> None:
        """Take the data set's next bytes."""

    def end(self) -> None:
        """Do what the message asks for: it is complete."""

    def discard(self, reason: str) -> None:
        """Undo what was begun: the message will not be completed."""


class MessageAssembler:
    """Assembles messages, one after the other.

    `begin` is called with the context and the command as soon as the command set is complete.
    """

    def __init__(self, begin: Callable[[int, Command], Operation]) -> None:
        self._begin = begin
        self._context = 0
        self._control = 0
        self._command = bytearray()
        self._operation: Operation | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no message has begun."""
        return self._operation is None and not self._context

    def open(self, context: int, control: int) -> None:
        """Begin a fragment. Raises InvalidMessage where it cannot follow the last one."""
        if self._context and context != self._context:
            raise InvalidMessage(
                f"a fragment of context {context} within a message of context {self._context}"
            )
        if bool(control & COMMAND) != (self._operation is None):
            kind = "command" if control & COMMAND else "data set"
            raise InvalidMessage(f"a {kind} fragment where one of the other kind is expected")
        self._context = context
        self._control = control

    def write(self, fragment: memoryview) -> None:
        """Take a part of the fragment. Raises InvalidMessage when a command set gets too long."""
        if self._operation is not None:
            self._operation.write(fragment)
        elif len(self._command) + len(fragment) > COMMAND_LENGTH:
            raise InvalidMessage(f"a command set of more than {COMMAND_LENGTH} bytes")
        else:
            self._command += fragment

    def close(self) -> None:
        """End the fragment. Raises InvalidMessage where the command set is not valid."""
        if not self._control & LAST:
            return
        if self._operation is None:
            encoded = bytes(self._command)
            self._command.clear()
            try:
                command = parse(encoded)
            except InvalidCommandSet as error:
                raise InvalidMessage(str(error)) from error
            self._operation = self._begin(self._context, command)
            if command.has_data_set:
                return
        operation, self._operation, self._context = self._operation, None, 0
        operation.end()

    def discard(self, reason: str) -> None:
        """Discard the message that has begun, if any: nothing more will come."""
        operation, self._operation, self._context = self._operation, None, 0
        if operation is not None:
            operation.discard(reason)
