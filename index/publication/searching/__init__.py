"""Searches of the published resources by their terms."""
