-- The last record of the journal whose instance is in the index, and the last that is durable without it.
ALTER TABLE spool_position RENAME TO journal_position;

-- Objects that are kept though the database refused their rows: index/reception/indexing.py.
CREATE TABLE unindexed_object (
    id {id},
    uid TEXT NOT NULL,
    path TEXT NOT NULL UNIQUE,
    reason TEXT NOT NULL,
    received {bigint} NOT NULL
);
