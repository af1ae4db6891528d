-- What a modality did to a step is not undone by its order; what the order's source said it may take back.
ALTER TABLE scheduled_step ADD COLUMN by_modality INTEGER NOT NULL DEFAULT 0;
UPDATE scheduled_step SET by_modality = 1 WHERE status IN ('STARTED', 'COMPLETED', 'DISCONTINUED');

-- The patient as the order's source told it: what a merge has changed, its end (ADT^A37) gives back.
ALTER TABLE imaging_order ADD COLUMN told_patient TEXT NOT NULL DEFAULT '{{}}';
UPDATE imaging_order SET told_patient = patient_attributes;

-- Whom a patient was merged into, of several merges in a row the next one; survivor_id is the last.
ALTER TABLE patient ADD COLUMN merged_id {bigint} REFERENCES patient (id);
UPDATE patient SET merged_id = survivor_id;
CREATE INDEX patient_merged_id ON patient (merged_id);
