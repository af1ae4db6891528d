"""TODO: scp/wire."""
