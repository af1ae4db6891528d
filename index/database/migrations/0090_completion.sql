-- When a study was told to be complete, and why: index/completion/. `told` 0: not yet; `due`: when it has been
-- quiet for long enough, NULL: never. `covered`: of how many of its instances a storage commitment was reported.
CREATE TABLE completion (
    id {id},
    study_uid TEXT {collation} NOT NULL UNIQUE,
    due {bigint},
    covered INTEGER NOT NULL DEFAULT 0,
    told {bigint} NOT NULL DEFAULT 0,
    reason TEXT {collation} NOT NULL DEFAULT '',
    instances INTEGER NOT NULL DEFAULT 0,
    later INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX completion_due ON completion (due) WHERE told = 0;
-- Studies that were here before are not told, but for those of the last hour: they may still grow.
INSERT INTO completion (study_uid, due, told, reason, instances)
SELECT
    uid,
    last_received + 600000,
    CASE WHEN last_received > (SELECT max(last_received) FROM study) - 3600000 THEN 0 ELSE last_received END,
    CASE WHEN last_received > (SELECT max(last_received) FROM study) - 3600000 THEN '' ELSE 'earlier' END,
    instance_count
FROM study WHERE instance_count > 0;

-- Of an entry that says that a study is complete: why.
ALTER TABLE change ADD COLUMN reason TEXT NOT NULL DEFAULT '';
-- Whether its source has said that an order is completed.
ALTER TABLE imaging_order ADD COLUMN is_completed INTEGER NOT NULL DEFAULT 0;

-- `kind`: instance, or notification: then `uid` is a study's.
CREATE TABLE new_outbox (
    id {id},
    node TEXT {collation} NOT NULL,
    kind TEXT {collation} NOT NULL,
    peer TEXT {collation} NOT NULL,
    uid TEXT {collation} NOT NULL,
    state TEXT {collation} NOT NULL,
    attempts INTEGER NOT NULL,
    due {bigint} NOT NULL,
    created {bigint} NOT NULL,
    error TEXT NOT NULL,
    UNIQUE (uid, peer, kind)
);
INSERT INTO new_outbox (node, kind, peer, uid, state, attempts, due, created, error)
SELECT node, 'instance', peer, uid, state, attempts, due, created, error FROM outbox ORDER BY id;
DROP TABLE outbox;
ALTER TABLE new_outbox RENAME TO outbox;
CREATE INDEX outbox_queue ON outbox (node, kind, peer, state, id, due);
