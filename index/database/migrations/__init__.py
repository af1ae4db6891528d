"""The schema, step by step: NNNN_name.sql is applied once, in the order of its number."""
