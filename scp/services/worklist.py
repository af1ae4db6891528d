"""The Modality Worklist Information Model - FIND as SCP (PS3.4 Annex K)."""

from pynetdicom.events import Event

from index import Index, WorklistQuery
from scp.association.events import record_of
from scp.settings.sections import Configuration

WORKLIST = "1.2.840.10008.5.1.4.31"


def worklist_query(index: Index, configuration: Configuration, event: Event) -> WorklistQuery:
    """Return the query of a C-FIND request. Raises BadIdentifier."""
    caller = record_of(event).info.calling_aet
    peer = configuration.find_peer(caller)
    charset, ignore_accents = (peer.charset, peer.ignore_accents) if peer else (None, False)
    return index.worklist.find(event.identifier, caller, charset, ignore_accents=ignore_accents)
