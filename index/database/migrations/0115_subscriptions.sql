-- FHIR Subscriptions (index/publication/subscriptions/). `definition`: the resource as it was sent. `base`: the
-- address of its FHIR version. `position`: the last entry of the change feed that was looked at. `events`: how many
-- were found, `delivered`: the last that its endpoint has. `attempts`: failures in a row. `due`: it is sent nothing
-- before; `sent`: when it was last sent something; in ms since 1970.
CREATE TABLE subscription (
    id {id},
    fhir TEXT {collation} NOT NULL,
    name TEXT {collation} NOT NULL,
    version INTEGER NOT NULL,
    changed {bigint} NOT NULL,
    owner TEXT NOT NULL,
    base TEXT NOT NULL,
    status TEXT {collation} NOT NULL,
    definition TEXT NOT NULL,
    position {bigint} NOT NULL,
    events {bigint} NOT NULL,
    delivered {bigint} NOT NULL,
    attempts INTEGER NOT NULL,
    due {bigint} NOT NULL,
    sent {bigint} NOT NULL,
    error TEXT NOT NULL,
    UNIQUE (fhir, name)
);

-- The events of a subscription, numbered from 1. `change_number`: the entry of the change feed that it is; it is
-- deleted with that. `name`: the study; `kind`: created, updated, deleted, complete.
CREATE TABLE subscription_event (
    id {id},
    subscription_id {bigint} NOT NULL REFERENCES subscription (id) ON DELETE CASCADE,
    number {bigint} NOT NULL,
    change_number {bigint} NOT NULL,
    name TEXT {collation} NOT NULL,
    kind TEXT {collation} NOT NULL,
    changed {bigint} NOT NULL,
    UNIQUE (subscription_id, number)
);
CREATE INDEX subscription_event_name ON subscription_event (subscription_id, name);
