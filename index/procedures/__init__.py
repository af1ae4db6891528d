"""Performed procedure steps (MPPS, PS3.4 Annex F), and their effects on orders and studies."""
