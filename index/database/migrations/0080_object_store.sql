-- The store that the objects of this index are in, where that is not the data directory: one row, or none.
-- `identity` is the content of its object `identity`. `swept`: the last day (YYYYMMDD) whose keys without a row
-- were removed; `looked`: when that was last done, in ms since 1970.
CREATE TABLE object_store (
    id {id},
    url TEXT NOT NULL,
    identity TEXT NOT NULL,
    swept INTEGER NOT NULL DEFAULT 0,
    looked {bigint} NOT NULL DEFAULT 0
);
