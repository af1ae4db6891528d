"""The worklist as modalities query it (PS3.4 Annex K)."""
