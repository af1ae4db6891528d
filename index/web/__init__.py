"""The HTTP face of the index."""
