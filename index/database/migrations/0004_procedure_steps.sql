-- A modality performed procedure step (PS3.4 Annex F). The data set is whole, as DICOM JSON; attributes are
-- what is read of it, by keyword.
CREATE TABLE performed_step (
    id {id},
    uid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    sender TEXT NOT NULL,
    dataset TEXT NOT NULL,
    attributes TEXT NOT NULL,
    created {bigint} NOT NULL,
    changed {bigint} NOT NULL
);

-- By UID: rows of studies may be rebuilt.
CREATE TABLE performed_step_study (
    id {id},
    step_id {bigint} NOT NULL REFERENCES performed_step (id),
    study_uid TEXT NOT NULL,
    UNIQUE (step_id, study_uid)
);
CREATE INDEX performed_step_study_study_uid ON performed_step_study (study_uid);

-- Which scheduled steps it performs. They may go with their order, it stays.
CREATE TABLE performed_for (
    id {id},
    step_id {bigint} NOT NULL REFERENCES performed_step (id),
    scheduled {bigint} NOT NULL,
    UNIQUE (step_id, scheduled)
);
CREATE INDEX performed_for_scheduled ON performed_for (scheduled);

-- The instances that a step says it made.
CREATE TABLE performed_instance (
    id {id},
    step_id {bigint} NOT NULL REFERENCES performed_step (id),
    uid TEXT NOT NULL,
    UNIQUE (step_id, uid)
);

-- A storage commitment (PS3.4 Annex J): what was asked for, and whether the report of it has been delivered.
CREATE TABLE commitment (
    id {id},
    peer TEXT NOT NULL,
    transaction_uid TEXT NOT NULL,
    asked TEXT NOT NULL,
    state TEXT NOT NULL,
    committed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due {bigint} NOT NULL,
    created {bigint} NOT NULL,
    UNIQUE (peer, transaction_uid)
);
CREATE INDEX commitment_due ON commitment (state, due);
