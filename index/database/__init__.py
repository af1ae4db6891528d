"""The database: connections, all tables, the statements that write rows, and migrations."""
