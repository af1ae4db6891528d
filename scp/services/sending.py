"""Sending stored instances to peers: for C-MOVE, C-GET, `send`, and what forwards.

An instance is sent as it is stored where the peer takes its transfer syntax, streamed from its file; else
transcoded where that can be done.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from time import monotonic

import structlog

from index import (
    DEFLATED,
    TRANSCODE_LIMIT,
    TRANSCODED,
    DataSetFile,
    IndexFault,
    InstanceSelection,
    NotTranscodable,
    Retrieval,
    StoredInstance,
    transcode,
)
from scp.association.client import Unreachable
from scp.association.store_association import (
    MAX_CONTEXTS,
    AssociationLost,
    ProposedContext,
    StoreAssociation,
    StoreChannel,
)
from scp.settings.sections import Configuration
from scp.wire.command_set import MoveOriginator, encode_store_request
from scp.wire.pdus import BytesSource, DataSource
from scp.wire.status import SUCCESS, WARNINGS, reason_for_peer

log = structlog.get_logger("scp")

# After so many associations that were lost one after the other, with nothing sent between them, it gives up.
# An instance that makes the peer abort must not stop the others.
MAX_LOSSES = 3

# The uncompressed syntaxes that are proposed besides the stored ones (PS3.5 Section 10.1).
_FALLBACK = TRANSCODED[:2]

# Statuses of warnings of storage: B000 to BFFF.
_WARNING_MASK, _WARNING = 0xF000, 0xB000

Kind = tuple[str, str]
"""SOP Class UID and transfer syntax UID of stored instances."""


class NoResponse(Enum):
    """Why there is no response to a C-STORE."""

    # There is no association with the peer.
    UNREACHABLE = 1
    # The association ended meanwhile.
    LOST = 2
    # The object cannot be sent to this peer: no context for it, not readable, not transcodable.
    NOT_SENT = 3


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one instance. `status` is that of the response, None where there was none."""

    instance: StoredInstance
    status: int | None
    reason: str = ""
    why: NoResponse | None = None

    @property
    def is_failed(self) -> bool:
        """Whether the peer does not have it."""
        return self.status != SUCCESS and not self.is_warning

    @property
    def is_warning(self) -> bool:
        """Whether the peer has kept it with a warning (PS3.4 Table B.2-1, PS3.7 Annex C)."""
        return self.status is not None and (
            self.status & _WARNING_MASK == _WARNING or self.status in WARNINGS
        )


def send_instance(
    retrieval: Retrieval,
    channel: StoreChannel,
    instance: StoredInstance,
    originator: MoveOriginator | None = None,
) -> Sent:
    """Send one instance over an association. Raises AssociationLost; all other failures are returned."""
    began = monotonic()
    try:
        contexts = channel.contexts.get(instance.sop_class_uid)
        if not contexts:
            reason = f"no context is accepted for SOP Class {instance.sop_class_uid}"
            return Sent(instance, None, reason, NoResponse.NOT_SENT)
        with retrieval.open(instance) as file:
            syntax, data = _choose(file, contexts)
            number = channel.next_message_id()
            request = encode_store_request(instance.sop_class_uid, instance.uid, number, originator)
            response = channel.store(contexts[syntax], number, request, data)
        retrieval.give_way(monotonic() - began)
    except AssociationLost:
        raise
    except (IndexFault, OSError) as error:
        return Sent(instance, None, reason_for_peer(error), NoResponse.NOT_SENT)
    status = response.status
    reason = "" if status == SUCCESS else f"answered {'no status' if status is None else f'{status:04X}'}"
    return Sent(instance, status, f"{reason} {response.comment}".strip())


def _choose(file: DataSetFile, contexts: dict[str, int]) -> tuple[str, DataSource]:
    """Return the transfer syntax in which a data set is sent, and its bytes. Raises NotTranscodable."""
    if file.transfer_syntax in contexts:
        # Fragments have even lengths (PS3.8 Section 9.3.1); PS3.5 Section A.5 has a deflated one padded so.
        is_odd = file.transfer_syntax == DEFLATED and file.size % 2
        return file.transfer_syntax, _PaddedFile(file) if is_odd else file
    wanted = next((syntax for syntax in TRANSCODED if syntax in contexts), None)
    if wanted is None:
        raise NotTranscodable(f"transfer syntax {file.transfer_syntax} is not accepted")
    if file.size > TRANSCODE_LIMIT:
        raise NotTranscodable(f"{file.size} bytes are too many to be transcoded")
    return wanted, BytesSource(transcode(file.read(), file.transfer_syntax, wanted))


class _PaddedFile:
    """A data set with a NUL at its end."""

    def __init__(self, file: DataSetFile) -> None:
        self._file = file
        self.size = file.size + 1

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """See DataSource."""
        *others, last = buffers
        if offset + sum(map(len, buffers)) == self.size:
            last[-1:] = b"\0"
            last = last[:-1]
        self._file.read_into([*others, last], offset)


class Sender:
    """Sends stored instances to one peer, over one association at a time.

    It is opened when it is first needed, and again after it was lost. Used by one thread; another may call
    `interrupt`. After `close` it can be used again: it then opens an association anew.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        configuration: Callable[[], Configuration],
        aet: str,
        originator: MoveOriginator | None = None,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        """`configuration` returns the one in force; `originator` is the requester of a C-MOVE.

        `is_over`: whether to wait no longer for the peer; it is asked each second.
        """
        self._is_over = is_over
        self._retrieval = retrieval
        self._configuration = configuration
        self._aet = aet
        self._originator = originator
        self._kinds: dict[Kind, None] = {}
        self._association: StoreAssociation | None = None
        self._losses = 0
        self._interrupted = False
        # Why nothing more is tried.
        self.gave_up = ""

    def send_all(self, selection: InstanceSelection) -> Iterator[Sent]:
        """Send a selection, and yield what came of each instance. Raises NotKept, DatabaseFault.

        Where it has more kinds than one association takes, they are sent one association after the other.
        """
        groups = list(_groups(selection.kinds))
        for kinds in groups:
            self._propose(kinds)
            sop_classes = {sop_class for sop_class, _ in kinds} if len(groups) > 1 else None
            for instance in selection.instances(sop_classes):
                yield self.send(instance)

    def expect(self, instances: Iterable[StoredInstance]) -> None:
        """Propose what these instances need, as far as one association takes it, from the next one on."""
        kinds = dict.fromkeys((one.sop_class_uid, one.transfer_syntax) for one in instances)
        if kinds.keys() - self._kinds.keys():
            first, *others = _groups([*self._kinds, *kinds])
            if not others:
                self._propose(first)

    def send(self, instance: StoredInstance) -> Sent:
        """Send one instance. Does not raise for what the peer or the instance brings up."""
        if self.gave_up:
            return Sent(instance, None, self.gave_up)
        kind = instance.sop_class_uid, instance.transfer_syntax
        if kind not in self._kinds:
            groups = list(_groups([*self._kinds, kind]))
            self._propose(groups[0] if len(groups) == 1 else [kind])
        try:
            sent = send_instance(self._retrieval, self._open(), instance, self._originator)
        except Unreachable as error:
            self._association = None
            self.gave_up = str(error)
            return Sent(instance, None, self.gave_up, NoResponse.UNREACHABLE)
        except AssociationLost as error:
            self._association = None
            self._losses += 1
            if self._interrupted or self._losses >= MAX_LOSSES:
                self.gave_up = str(error)
            log.warning("send_association_lost", peer=self._aet, reason=str(error), instance=instance.uid)
            return Sent(instance, None, str(error), NoResponse.LOST)
        self._losses = 0
        return sent

    def interrupt(self) -> None:
        """Give up at once. Called from any thread."""
        self._interrupted = True
        if association := self._association:
            association.interrupt()

    def close(self) -> None:
        """Release the association, if there is one."""
        if association := self._association:
            self._association = None
            association.release()

    def _propose(self, kinds: Iterable[Kind]) -> None:
        """Propose these kinds from the next association on."""
        self.close()
        self._kinds = dict.fromkeys(kinds)

    def _open(self) -> StoreAssociation:
        if self._association is None:
            self._association = opening = StoreAssociation(self._is_over)
            if self._interrupted:
                opening.interrupt()
            opening.open(self._configuration(), self._aet, proposed_contexts(self._kinds))
        return self._association


def proposed_contexts(kinds: Iterable[Kind]) -> list[ProposedContext]:
    """Return the contexts to propose: one for each kind, and for each SOP Class one that is uncompressed.

    Of one context the peer accepts one syntax only (PS3.8 Section 9.3.3.2).
    """
    syntaxes: dict[str, dict[str, None]] = {}
    for sop_class, syntax in kinds:
        syntaxes.setdefault(sop_class, {})[syntax] = None
    proposed = []
    for sop_class, stored in syntaxes.items():
        kept = list(stored)[: MAX_CONTEXTS - 1]
        proposed += [ProposedContext(sop_class, [syntax]) for syntax in kept]
        if others := [syntax for syntax in _FALLBACK if syntax not in stored]:
            proposed.append(ProposedContext(sop_class, others))
    return proposed


def _groups(kinds: Iterable[Kind]) -> Iterator[Sequence[Kind]]:
    """Part kinds so that one association has contexts for each part; a SOP Class is in one part only."""
    of_class: dict[str, list[Kind]] = {}
    for kind in kinds:
        of_class.setdefault(kind[0], []).append(kind)
    group: list[Kind] = []
    for mine in of_class.values():
        if group and len(proposed_contexts([*group, *mine])) > MAX_CONTEXTS:
            yield group
            group = []
        group += mine
    if group:
        yield group
