-- Up to which number the change feed was pruned: one row, or none. index/publication/feed.py.
CREATE TABLE change_pruned (
    id {id},
    number {bigint} NOT NULL
);
