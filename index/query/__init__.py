"""Queries (C-FIND): keys, identifiers, matching of values and identifiers, character sets of answers."""
