"""Resources are published to FHIR servers: each target follows the change feed."""
