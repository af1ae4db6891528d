"""TODO: index/orders/patients."""
