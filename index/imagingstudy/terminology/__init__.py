"""Codes, and what they mean in FHIR."""
