-- Objects whose rows are deleted and whose files are to go: what a crash in between leaves is not taken back.
CREATE TABLE removed_object (
    id {id},
    path TEXT NOT NULL
);

-- Deleting a variant asks which instances refer to it.
CREATE INDEX instance_study_variant_id ON instance (study_variant_id);
CREATE INDEX instance_series_variant_id ON instance (series_variant_id);
