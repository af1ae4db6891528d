"""Which presentation contexts are accepted (PS3.8 Section 9.3.2.2): only those that we serve."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from pynetdicom.presentation import PresentationContext

from index import is_uid
from scp.association.syntaxes import DECODABLE, preferred

VERIFICATION = "1.2.840.10008.1.1"

_DICOM = "1.2.840.10008."
_COMPOSITE = "1.2.840.10008.5.1.4.1.1."

# SOP Classes with the UID prefix of composite storage that are not storage: protocol approval and inventory
# FIND, MOVE, GET, and the creation of inventories (PS3.6 Table A-1); .201.6 is from drafts.
_NOT_STORAGE = frozenset(
    _COMPOSITE + suffix for suffix in ("200.4", "200.5", "200.6", "201.2", "201.3", "201.4", "201.5", "201.6")
)

# Storage SOP Classes with another UID prefix, retired ones included (PS3.6 Table A-1).
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


@lru_cache(maxsize=1024)  # used for each message; made-up UIDs must not fill memory
def is_storage(sop_class_uid: str) -> bool:
    """Whether a SOP Class is for storage: known, retired, newer than this code, or private."""
    if not is_uid(sop_class_uid):
        return False
    if sop_class_uid.startswith(_COMPOSITE):
        return sop_class_uid not in _NOT_STORAGE
    return sop_class_uid in _STORAGE_ELSEWHERE or not f"{sop_class_uid}.".startswith(_DICOM)


def allows_sop_class(abstract_syntax: str, sop_class_uid: str, services: Mapping[str, str]) -> bool:
    """Whether a message about a SOP Class may use a presentation context (PS3.7 Sections 9.1 and 10.1).

    The SOP Class must be the context's abstract syntax, or one of the same service.
    """
    if abstract_syntax == sop_class_uid:
        return True
    service = services.get(abstract_syntax)
    return service is not None and services.get(sop_class_uid) == service


def supported_contexts(
    proposed: Iterable[PresentationContext],
    services: Mapping[str, str],
    *,
    retrieve: bool = False,
    store: bool = True,
    receives: Collection[str] = (),
    order: Sequence[str] = (),
) -> list[PresentationContext]:
    """Return the contexts that we support, one for each proposed abstract syntax, best syntaxes first.

    `services` holds the abstract syntaxes, besides verification and storage, that this caller may use.
    `retrieve`: the caller may be the SCP of storage, as C-GET needs it (PS3.4 Section C.4.3); `receives`: the
    SOP Classes for which it proposes that. `store`: it may store. `order`: see `preferred`.
    """
    syntaxes: dict[str, list[str]] = {}
    for context in proposed:
        syntaxes.setdefault(str(context.abstract_syntax), []).extend(map(str, context.transfer_syntax))
    contexts = []
    for abstract, offered in syntaxes.items():
        received = retrieve and abstract in receives
        stored = (store or received) and is_storage(abstract) and abstract not in services
        if not (stored or abstract == VERIFICATION or abstract in services):
            continue
        context = PresentationContext()
        context.abstract_syntax = abstract
        # Verification has no data set: a configured order does not apply.
        ranked = preferred(offered, order if abstract != VERIFICATION else ())
        # Verification has no data set, and storage does not decode it: any syntax will do.
        context.transfer_syntax = [uid for uid in ranked if uid in DECODABLE or abstract not in services]
        # The caller is SCU, we are SCP; where the caller proposes only the contrary, the context is rejected.
        context.scu_role, context.scp_role = store or not stored, stored and retrieve
        contexts.append(context)
    return contexts
