"""One DIMSE service each."""
