"""DIMSE and the daemon."""
