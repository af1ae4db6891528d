"""Storage: objects as files, the journal, the locks of a data directory, the space on its disk."""
