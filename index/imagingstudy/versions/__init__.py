"""The ImagingStudy of each FHIR version, and the profile MADO."""
