"""Orders: how they come in, what the worklist answers from them, and which study each belongs to."""
