"""The DICOM protocol as bytes: connections, PDUs, command sets, statuses."""
