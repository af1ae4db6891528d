"""Stores that several nodes share: a bucket of the S3 interface, or a folder."""
