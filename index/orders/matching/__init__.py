"""The match of a study to its orders: the rules, what they compare, and the matches in the index."""
