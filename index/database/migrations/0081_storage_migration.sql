-- A migration of the objects to another store that has begun: one row, or none. `last`: the row ids of the
-- instances up to this one are copied.
CREATE TABLE storage_migration (
    id {id},
    url TEXT NOT NULL,
    identity TEXT NOT NULL,
    last {bigint} NOT NULL DEFAULT 0
);
