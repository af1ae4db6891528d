"""Which associations are accepted, and associations of our own."""
