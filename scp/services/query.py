"""The Query/Retrieve Information Models - FIND as SCP (PS3.4 Annex C)."""

from typing import cast

from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.events import Event

from index import PATIENT_ROOT, STUDY_ROOT, Index, QueryOptions, StudyQuery
from scp.association.events import association_of, record_of
from scp.settings.sections import Configuration

MODELS = {"1.2.840.10008.5.1.4.1.2.1.1": PATIENT_ROOT, "1.2.840.10008.5.1.4.1.2.2.1": STUDY_ROOT}
"""The levels of each information model, by the UID of its SOP Class."""

# How many options of the extended negotiation are used (PS3.4 Section C.5.1.1).
_OPTIONS = 3


def study_query(index: Index, configuration: Configuration, event: Event) -> StudyQuery:
    """Return the query of a C-FIND request. Raises BadIdentifier."""
    peer = configuration.find_peer(record_of(event).info.calling_aet)
    model = str(cast("C_FIND", event.request).AffectedSOPClassUID)
    agreed = association_of(event).extended(model).ljust(_OPTIONS, b"\0")
    relational, combined_times, fuzzy = map(bool, agreed[:_OPTIONS])
    options = QueryOptions(
        MODELS[model],
        configuration.dicom.aet,
        configuration.limits.answers,
        charset=peer.charset if peer else None,
        ignore_accents=fuzzy or bool(peer and peer.ignore_accents),
        relational=relational,
        combined_times=combined_times,
    )
    return index.queries.find(event.identifier, options)
