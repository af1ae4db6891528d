"""TODO: scp/settings."""
