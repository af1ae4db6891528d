"""TODO: index/dicom/scanning."""
