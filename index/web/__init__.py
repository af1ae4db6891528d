"""What is served by HTTP: FHIR, the change feed, DICOMweb, the page; and who may have it."""
