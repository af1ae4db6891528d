"""TODO: index/query."""
