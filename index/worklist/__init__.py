"""The worklist as modalities ask for it: keys, matching, answers (PS3.4 Annex K). Pure, but for query.py."""
