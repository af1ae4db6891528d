"""TODO: index/storage."""
