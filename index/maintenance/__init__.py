"""TODO: index/maintenance."""
