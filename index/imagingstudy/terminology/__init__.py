"""TODO: index/imagingstudy/terminology."""
