"""Performed procedure steps: what modalities tell of them (MPPS, PS3.4 Annex F), and what follows from it."""
