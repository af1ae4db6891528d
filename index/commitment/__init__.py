"""Storage commitment: whether what was received is there and whole."""
