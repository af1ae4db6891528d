"""FHIR REST: what the index knows as resources, in each FHIR version."""
