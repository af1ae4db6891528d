"""Reception: one instance from its first byte until it is kept and indexed."""
