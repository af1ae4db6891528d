"""TODO: index/dicom."""
