"""TODO: scp/observing."""
