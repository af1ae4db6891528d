"""TODO: index/imagingstudy/elements."""
