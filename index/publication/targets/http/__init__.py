"""Requests to a target, how they are authorized, and what its answers mean."""
