"""TODO: index/orders/matching."""
