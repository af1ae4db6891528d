"""When a study is complete, and why: told once."""
