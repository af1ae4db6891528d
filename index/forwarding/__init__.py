"""Which instances are forwarded to which peers, and the outbox in which they wait for it."""
