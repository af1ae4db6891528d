-- Instances that are to be sent to peers (index/forwarding/outbox.py). `state`: waiting or dead. `due`: not
-- before, in ms since 1970; 0 is at once. `node`: the one that sends it, empty where there is one only.
CREATE TABLE outbox (
    id {id},
    node TEXT {collation} NOT NULL,
    peer TEXT {collation} NOT NULL,
    uid TEXT {collation} NOT NULL,
    state TEXT {collation} NOT NULL,
    attempts INTEGER NOT NULL,
    due {bigint} NOT NULL,
    created {bigint} NOT NULL,
    error TEXT NOT NULL,
    UNIQUE (uid, peer)
);
CREATE INDEX outbox_queue ON outbox (node, peer, state, id, due);
