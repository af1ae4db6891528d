-- When each data directory last told that it is served, by the clock of the database; 0: it is not.
ALTER TABLE node ADD COLUMN seen {bigint} NOT NULL DEFAULT 0;

-- Every node has a journal, and verifies its own objects: 0 is the node that was there first, or the only one.
ALTER TABLE journal_position ADD COLUMN node {bigint} NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX journal_position_node ON journal_position (node);
ALTER TABLE verification ADD COLUMN node {bigint} NOT NULL DEFAULT 0;

-- Under which path a removed object is to be kept aside before it is unlinked; empty: it is not to be kept.
ALTER TABLE removed_object ADD COLUMN aside TEXT NOT NULL DEFAULT '';
