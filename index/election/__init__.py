"""TODO: index/election."""
