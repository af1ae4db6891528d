"""Orders: their sources, the orders in the index, their patients, and their match to studies."""
