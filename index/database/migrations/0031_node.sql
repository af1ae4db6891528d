-- The data directories that the index is of, by what stands in their file `identity`: index/node.py.
CREATE TABLE node (
    id {id},
    identity TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    path TEXT NOT NULL,
    since {bigint} NOT NULL
);
