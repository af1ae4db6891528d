"""TODO: index/imagingstudy/versions."""
