-- A study that was withdrawn by an operator, where that is to be said and not only done.
ALTER TABLE study ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0;

-- Every resource that was ever published: its last content by hash, and how often that changed.
CREATE TABLE resource (
    id {id},
    fhir TEXT NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    UNIQUE (fhir, type, name)
);

-- Which studies a resource is written for; it goes when none is left.
CREATE TABLE study_resource (
    id {id},
    study_id {bigint} NOT NULL REFERENCES study (id),
    resource_id {bigint} NOT NULL REFERENCES resource (id),
    UNIQUE (study_id, resource_id)
);
CREATE INDEX study_resource_resource_id ON study_resource (resource_id);

-- The change feed; id is the sequence number.
CREATE TABLE change (
    id {id},
    resource_id {bigint} NOT NULL REFERENCES resource (id),
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    changed {bigint} NOT NULL
);
