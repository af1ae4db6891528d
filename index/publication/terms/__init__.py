"""What resources are searched by: their search parameters' values, kept in a table."""
