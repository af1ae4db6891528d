-- The last record of the journal whose instance is in the index, and the last whose object is synced:
-- index/spool.py.
CREATE TABLE spool_position (
    id {id},
    number {bigint} NOT NULL,
    settled {bigint} NOT NULL
);
INSERT INTO spool_position (id, number, settled) VALUES (1, 0, 0);
