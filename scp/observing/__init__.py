"""Logs, metrics, and the record of each association."""
