-- {id} and {bigint} are what the database calls them: see index/database.py.
CREATE TABLE patient (
    id {id},
    key TEXT NOT NULL UNIQUE,
    attributes TEXT NOT NULL
);

CREATE TABLE study (
    id {id},
    uid TEXT NOT NULL UNIQUE,
    patient_id {bigint} REFERENCES patient (id),
    attributes TEXT NOT NULL,
    series_count INTEGER NOT NULL,
    instance_count INTEGER NOT NULL,
    first_received {bigint} NOT NULL,
    last_received {bigint} NOT NULL,
    revision {bigint} NOT NULL,
    published {bigint} NOT NULL
);
CREATE INDEX study_patient_id ON study (patient_id);
-- What is to be published is found without looking at what is not.
CREATE INDEX study_unpublished ON study (id) WHERE revision <> published;

CREATE TABLE study_variant (
    id {id},
    study_id {bigint} NOT NULL REFERENCES study (id),
    digest TEXT NOT NULL,
    patient_id {bigint} NOT NULL REFERENCES patient (id),
    patient_attributes TEXT NOT NULL,
    attributes TEXT NOT NULL,
    instance_count INTEGER NOT NULL,
    UNIQUE (study_id, digest)
);
CREATE INDEX study_variant_patient_id ON study_variant (patient_id);

CREATE TABLE series (
    id {id},
    study_id {bigint} NOT NULL REFERENCES study (id),
    uid TEXT NOT NULL,
    attributes TEXT NOT NULL,
    instance_count INTEGER NOT NULL,
    UNIQUE (study_id, uid)
);
CREATE INDEX series_uid ON series (uid);

CREATE TABLE series_variant (
    id {id},
    series_id {bigint} NOT NULL REFERENCES series (id),
    digest TEXT NOT NULL,
    attributes TEXT NOT NULL,
    instance_count INTEGER NOT NULL,
    UNIQUE (series_id, digest)
);

CREATE TABLE source (
    id {id},
    calling_aet TEXT NOT NULL,
    called_aet TEXT NOT NULL,
    address TEXT NOT NULL,
    UNIQUE (calling_aet, called_aet, address)
);

CREATE TABLE instance (
    id {id},
    uid TEXT NOT NULL UNIQUE,
    series_id {bigint} NOT NULL REFERENCES series (id),
    study_variant_id {bigint} NOT NULL REFERENCES study_variant (id),
    series_variant_id {bigint} NOT NULL REFERENCES series_variant (id),
    sop_class_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    attributes TEXT NOT NULL,
    doubts TEXT NOT NULL,
    path TEXT NOT NULL,
    size {bigint} NOT NULL,
    sha1 TEXT NOT NULL,
    source_id {bigint} NOT NULL REFERENCES source (id),
    received {bigint} NOT NULL
);
CREATE INDEX instance_series_id ON instance (series_id);

CREATE TABLE conflict (
    id {id},
    uid TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    path TEXT NOT NULL,
    size {bigint} NOT NULL,
    sha1 TEXT NOT NULL UNIQUE,
    source_id {bigint} NOT NULL REFERENCES source (id),
    received {bigint} NOT NULL
);
CREATE INDEX conflict_uid ON conflict (uid);
