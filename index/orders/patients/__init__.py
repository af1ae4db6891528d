"""The patients of orders: their identifiers, and updates, merges and unlinks by ADT messages."""
