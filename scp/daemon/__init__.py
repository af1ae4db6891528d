"""TODO: scp/daemon."""
