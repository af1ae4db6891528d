-- A merged patient points to its survivor, whose own attributes are what the hospital said last (ADT).
ALTER TABLE patient ADD COLUMN survivor_id {bigint} REFERENCES patient (id);
CREATE INDEX patient_survivor_id ON patient (survivor_id);

-- A requested procedure, as a worklist answers it: attributes by DICOM keyword, the usual keys as columns.
CREATE TABLE imaging_order (
    id {id},
    key TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    sender TEXT NOT NULL,
    identity TEXT NOT NULL,
    patient_id {bigint} NOT NULL REFERENCES patient (id),
    patient_number TEXT NOT NULL,
    patient_name TEXT NOT NULL,
    patient_attributes TEXT NOT NULL,
    attributes TEXT NOT NULL,
    charset TEXT NOT NULL,
    stamp TEXT NOT NULL,
    placer TEXT NOT NULL,
    filler TEXT NOT NULL,
    accession TEXT NOT NULL,
    accession_issuer TEXT NOT NULL,
    procedure_id TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    status TEXT NOT NULL,
    created {bigint} NOT NULL,
    changed {bigint} NOT NULL,
    UNIQUE (source, sender, identity)
);
CREATE INDEX imaging_order_patient_id ON imaging_order (patient_id);
CREATE INDEX imaging_order_patient_number ON imaging_order (patient_number);
CREATE INDEX imaging_order_accession ON imaging_order (accession);
CREATE INDEX imaging_order_procedure_id ON imaging_order (procedure_id);
CREATE INDEX imaging_order_study_uid ON imaging_order (study_uid);
CREATE INDEX imaging_order_placer ON imaging_order (placer);
CREATE INDEX imaging_order_filler ON imaging_order (filler);

CREATE TABLE scheduled_step (
    id {id},
    order_id {bigint} NOT NULL REFERENCES imaging_order (id),
    step_id TEXT NOT NULL,
    station TEXT NOT NULL,
    modality TEXT NOT NULL,
    start_date TEXT NOT NULL,
    start_time TEXT NOT NULL,
    status TEXT NOT NULL,
    attributes TEXT NOT NULL,
    UNIQUE (order_id, step_id)
);
-- One station's day, of those still scheduled.
CREATE INDEX scheduled_step_worklist ON scheduled_step (status, start_date, station);
CREATE INDEX scheduled_step_step_id ON scheduled_step (step_id);

-- What matching came to for a study that has instances. By UID: rows of studies may be rebuilt.
CREATE TABLE study_match (
    id {id},
    study_uid TEXT NOT NULL UNIQUE,
    rule TEXT NOT NULL,
    operator INTEGER NOT NULL,
    doubt TEXT NOT NULL
);
CREATE TABLE study_order (
    id {id},
    study_uid TEXT NOT NULL,
    order_id {bigint} NOT NULL REFERENCES imaging_order (id),
    UNIQUE (study_uid, order_id)
);
CREATE INDEX study_order_order_id ON study_order (order_id);

-- What an order that comes later would find a study by.
CREATE TABLE study_key (
    id {id},
    study_uid TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (study_uid, kind, value)
);
CREATE INDEX study_key_value ON study_key (kind, value);
