"""Which presentation contexts are accepted (PS3.8 Section 9.3.2.2): our own rule, failing closed."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from pynetdicom.presentation import PresentationContext

from scp.association.syntaxes import DECODABLE, UID, preferred

VERIFICATION = "1.2.840.10008.1.1"

_DICOM = "1.2.840.10008."
_COMPOSITE = "1.2.840.10008.5.1.4.1.1."

# SOP Classes that stand among those of composite storage and are no storage: protocol approval and inventory
# FIND, MOVE, GET, and the creation of inventories (PS3.6 Table A-1); .201.6 was given out by drafts.
_NOT_STORAGE = frozenset(
    _COMPOSITE + suffix for suffix in ("200.4", "200.5", "200.6", "201.2", "201.3", "201.4", "201.5", "201.6")
)

# Storage SOP Classes that stand elsewhere, retired ones included (PS3.6 Table A-1).
_STORAGE_ELSEWHERE = frozenset(
    {
        "1.2.840.10008.5.1.1.27",  # Stored Print, retired
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale Image, retired
        "1.2.840.10008.5.1.1.30",  # Hardcopy Color Image, retired
        "1.2.840.10008.5.1.4.34.1",  # RT Beams Delivery Instruction, trial, retired
        "1.2.840.10008.5.1.4.34.7",  # RT Beams Delivery Instruction
        "1.2.840.10008.5.1.4.34.10",  # RT Brachy Application Setup Delivery Instruction
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
    }
)


@lru_cache(maxsize=1024)  # asked for each message; what a peer makes up must not fill memory
def is_storage(sop_class_uid: str) -> bool:
    """Tell whether a SOP Class is one of storage: known, retired, newer than this code, or private."""
    if not UID.fullmatch(sop_class_uid):
        return False
    if sop_class_uid.startswith(_COMPOSITE):
        return sop_class_uid not in _NOT_STORAGE
    return sop_class_uid in _STORAGE_ELSEWHERE or not f"{sop_class_uid}.".startswith(_DICOM)


def fits(abstract_syntax: str, sop_class_uid: str, services: Mapping[str, str]) -> bool:
    """Tell whether a message about a SOP Class may come in a context (PS3.7 Section 9.1, 10.1).

    It must be the context's own; a service of several SOP Classes takes any of them.
    """
    if abstract_syntax == sop_class_uid:
        return True
    service = services.get(abstract_syntax)
    return service is not None and services.get(sop_class_uid) == service


def supported(
    proposed: Iterable[PresentationContext],
    services: Mapping[str, str],
    *,
    retrieve: bool = False,
    store: bool = True,
    order: Sequence[str] = (),
) -> list[PresentationContext]:
    """Return what we support of the contexts proposed, one for each abstract syntax, best syntaxes first.

    `services` holds the abstract syntaxes, besides verification and storage, that this caller may use.
    With `retrieve` the caller may be the SCP of storage, as C-GET needs it (PS3.4 Section C.4.3). Without
    `store` it may not store. `order` is as `scp.syntaxes.preferred` has it.
    """
    syntaxes: dict[str, list[str]] = {}
    for context in proposed:
        syntaxes.setdefault(str(context.abstract_syntax), []).extend(map(str, context.transfer_syntax))
    contexts = []
    for abstract, offered in syntaxes.items():
        stored = store and is_storage(abstract) and abstract not in services
        if not (stored or abstract == VERIFICATION or abstract in services):
            continue
        context = PresentationContext()
        context.abstract_syntax = abstract
        # Verification has no data set to be encoded: no order can shut it out.
        ranked = preferred(offered, order if abstract != VERIFICATION else ())
        # Verification has no data set, and storage never decodes one: any syntax will do.
        context.transfer_syntax = [uid for uid in ranked if uid in DECODABLE or abstract not in services]
        # The caller is SCU, we are SCP; whoever insists on the contrary gets the context rejected.
        context.scu_role, context.scp_role = True, stored and retrieve
        contexts.append(context)
    return contexts
