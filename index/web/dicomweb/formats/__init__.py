"""What DICOMweb sends and takes: media types, multipart bodies, the DICOM JSON and Native DICOM models."""
