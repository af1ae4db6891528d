"""The DICOM conformance statement (PS3.2 Annex N), made from the tables that decide."""
