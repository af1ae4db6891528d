-- What `studies` lists and `retain` reads, one row for each study, made when the study is published:
-- index/publication/listing.py. Of studies published before, the rows are still to be made (revision -1).
CREATE TABLE study_listing (
    id {bigint} PRIMARY KEY REFERENCES study (id) ON DELETE CASCADE,
    revision {bigint} NOT NULL,
    state TEXT {collation} NOT NULL,
    patient_id TEXT {collation} NOT NULL,
    accession TEXT {collation} NOT NULL,
    name TEXT {collation} NOT NULL,
    started TEXT {collation} NOT NULL,
    last_received {bigint} NOT NULL,
    bytes {bigint} NOT NULL,
    details TEXT NOT NULL
);
-- One index for each order of the list; all queries ask for one state.
CREATE INDEX study_listing_state ON study_listing (state, id);
CREATE INDEX study_listing_patient_id ON study_listing (state, patient_id, id);
CREATE INDEX study_listing_accession ON study_listing (state, accession, id);
CREATE INDEX study_listing_name ON study_listing (state, name, id);
CREATE INDEX study_listing_started ON study_listing (state, started, id);
CREATE INDEX study_listing_received ON study_listing (state, last_received, id, bytes);
CREATE INDEX study_listing_to_make ON study_listing (id) WHERE revision < 0;

-- The values of a study of which one is enough to find it. `kind`: name or modality.
CREATE TABLE study_term (
    id {id},
    study_id {bigint} NOT NULL REFERENCES study_listing (id) ON DELETE CASCADE,
    kind TEXT {collation} NOT NULL,
    value TEXT {collation} NOT NULL,
    UNIQUE (study_id, kind, value)
);
CREATE INDEX study_term_value ON study_term (kind, value, study_id);

INSERT INTO study_listing (id, revision, state, patient_id, accession, name, started, last_received, bytes, details)
    SELECT id, -1, '', '', '', '', '', 0, 0, 'null' FROM study;
