"""Changed studies written as files below `fhir/`, and the change feed."""
