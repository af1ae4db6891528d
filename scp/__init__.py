"""Speaks DIMSE and runs the daemon."""
