-- What a query finds a study by, as in SQLite (0012, 0054). The expressions are those of
-- index/database/extracted.py: the database uses an index only for the same text.
CREATE INDEX study_variant_patient_number ON study_variant (
    ((CAST(patient_attributes AS json) ->> 'PatientID') COLLATE "C")
);
CREATE INDEX study_variant_accession ON study_variant (
    ((CAST(attributes AS json) ->> 'AccessionNumber') COLLATE "C")
);
CREATE INDEX study_variant_study_date ON study_variant (
    ((CAST(attributes AS json) ->> 'StudyDate') COLLATE "C")
);
CREATE INDEX study_variant_patient_name ON study_variant ((
    CASE WHEN (CAST(patient_attributes AS json) ->> 'PatientName') COLLATE "C" ~ '[^ -<>-~]' THEN ''
    ELSE lower((CAST(patient_attributes AS json) ->> 'PatientName') COLLATE "C") END
));
-- The same of patients with attributes of their own, which are those of ADT messages.
CREATE INDEX patient_number ON patient (((CAST(attributes AS json) ->> 'PatientID') COLLATE "C"))
    WHERE attributes <> '{{}}';
CREATE INDEX patient_name ON patient ((
    CASE WHEN (CAST(attributes AS json) ->> 'PatientName') COLLATE "C" ~ '[^ -<>-~]' THEN ''
    ELSE lower((CAST(attributes AS json) ->> 'PatientName') COLLATE "C") END
)) WHERE attributes <> '{{}}';
