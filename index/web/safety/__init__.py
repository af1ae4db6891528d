"""Who calls, and whether the request may come in at all; before any face sees it."""
