"""What changed -> files below `fhir/` and the change feed."""
