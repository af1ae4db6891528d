"""TODO: scp/association."""
