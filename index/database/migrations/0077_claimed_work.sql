-- When work that one node does for all is due again: milliseconds since 1970 by the clock of the database.
CREATE TABLE periodic_work (
    id {id},
    name TEXT NOT NULL UNIQUE,
    due {bigint} NOT NULL
);

-- Which node reports on a commitment: the one that was asked, by its number in the paths of its objects.
ALTER TABLE commitment ADD COLUMN node {bigint} NOT NULL DEFAULT 0;

-- What a node answers for of the objects that it keeps, where another one reports on them. `checked`: when it
-- began to look at them; 0: it is still to do so. `committed`: SOP Instance UIDs; `failed`: with the reason.
CREATE TABLE commitment_check (
    id {id},
    commitment_id {bigint} NOT NULL REFERENCES commitment (id) ON DELETE CASCADE,
    node {bigint} NOT NULL,
    checked {bigint} NOT NULL,
    committed TEXT NOT NULL,
    failed TEXT NOT NULL,
    UNIQUE (commitment_id, node)
);
CREATE INDEX commitment_check_to_do ON commitment_check (node) WHERE checked = 0;
