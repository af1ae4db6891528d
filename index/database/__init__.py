"""The database: tables, statements, connections. What only one engine knows stands here."""

import sys

# peewee imports psycopg wherever it is installed, which takes twice the time of peewee itself. Only
# index/database/postgresql.py needs it.
if "psycopg" not in sys.modules:
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # "import psycopg" raises ImportError
    import peewee  # noqa: F401

    del sys.modules["psycopg"]
