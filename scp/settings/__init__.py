"""The configuration: its sections, its file, and its checks."""
