-- FHIR servers that resources are published to (index/publication/targets/). `url` and `fhir`: of which server
-- the rest was learnt. `position`: the last entry of the change feed that is in the outbox, `position_at` its
-- time. `filled`: the last of the resources that were there before; NULL: all are in the outbox.
CREATE TABLE publish_target (
    id {id},
    name TEXT {collation} NOT NULL UNIQUE,
    url TEXT NOT NULL,
    fhir TEXT NOT NULL,
    position {bigint} NOT NULL,
    position_at {bigint} NOT NULL,
    filled {bigint}
);

-- What is to be published: a study by its ImagingStudy, or another resource that is to be deleted. `number`: the
-- last entry of the feed that it is of. `created`: of the first, in ms since 1970. `due`: not before; 0: at once.
-- `outcome`: the server's OperationOutcome.
CREATE TABLE publish_outbox (
    id {id},
    target TEXT {collation} NOT NULL,
    type TEXT {collation} NOT NULL,
    name TEXT {collation} NOT NULL,
    number {bigint} NOT NULL,
    state TEXT {collation} NOT NULL,
    attempts INTEGER NOT NULL,
    due {bigint} NOT NULL,
    created {bigint} NOT NULL,
    error TEXT NOT NULL,
    outcome TEXT NOT NULL,
    UNIQUE (target, type, name)
);
CREATE INDEX publish_outbox_queue ON publish_outbox (target, state, due, id);

-- What a server has: under which id, as which version (its ETag), and the content by its SHA-256.
CREATE TABLE published_resource (
    id {id},
    target TEXT {collation} NOT NULL,
    type TEXT {collation} NOT NULL,
    name TEXT {collation} NOT NULL,
    server_id TEXT NOT NULL,
    etag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    UNIQUE (target, type, name)
);
