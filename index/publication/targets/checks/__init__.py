"""A target is asked: what it can do, and whether it has what we have."""
