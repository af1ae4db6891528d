"""pynetdicom's application entity with our settings, for associations of both directions."""

from pynetdicom.ae import ApplicationEntity

from index import IMPLEMENTATION_CLASS_UID
from scp.settings.sections import DicomSettings

# PS3.7 Annex D.3.3.2.
IMPLEMENTATION_VERSION_NAME = "IMAGINGSTUDYD"


def application_entity(dicom: DicomSettings) -> ApplicationEntity:
    """Return pynetdicom's application entity with our AE title, limits and timeouts."""
    ae = ApplicationEntity(dicom.aet)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = dicom.max_pdu
    ae.maximum_associations = 2**31  # the listener counts
    ae.acse_timeout = dicom.timeouts.request
    ae.dimse_timeout = dicom.timeouts.pdu
    ae.network_timeout = dicom.timeouts.idle
    return ae
