"""What the listener passes to each association."""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pynetdicom.ae import ApplicationEntity

from scp.association.admission import Admission
from scp.association.events import Handler
from scp.association.quota import AssociationQuota
from scp.observing.association_info import AssociationInfo
from scp.observing.metrics import Metrics
from scp.services.retrieve import RetrieveService
from scp.services.store import StoreService
from scp.settings.sections import DicomSettings


@dataclass(frozen=True, slots=True)
class ListenerContext:
    """What an association needs of the daemon; replaced as a whole when the configuration changes."""

    dicom: DicomSettings
    admission: Admission
    store: StoreService
    handlers: Sequence[Handler]
    ae: ApplicationEntity
    on_association_end: Callable[[AssociationInfo], None] | None
    metrics: Metrics
    ssl_context: ssl.SSLContext | None = None
    retrieve: RetrieveService | None = None
    quota: AssociationQuota = field(default_factory=AssociationQuota)
