"""One module for each DIMSE service."""
