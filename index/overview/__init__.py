"""What an operator looks at: studies found and told of, and orders; read from the index alone."""
