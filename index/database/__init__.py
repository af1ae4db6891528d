"""TODO: index/database."""
