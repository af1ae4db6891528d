"""Deletion, retention, backup, reindex and verify."""
