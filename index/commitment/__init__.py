"""Storage commitment: whether what was received is there and whole."""

import index.database  # noqa: F401  before peewee: see there
