"""TODO: index/reception."""
