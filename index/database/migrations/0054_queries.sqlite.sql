-- What a query finds a study by (index/query/selection.py), besides UIDs and PatientID (0012). The expressions
-- are those of index/database/extracted.py: the database uses an index only for the same text.
CREATE INDEX study_variant_accession ON study_variant (json_extract(attributes, '$.AccessionNumber'));
CREATE INDEX study_variant_study_date ON study_variant (json_extract(attributes, '$.StudyDate'));
CREATE INDEX study_variant_patient_name ON study_variant (
    CASE WHEN json_extract(patient_attributes, '$.PatientName') GLOB '*[^ -<>-~]*' THEN ''
    ELSE lower(json_extract(patient_attributes, '$.PatientName')) END
);
-- The same of patients with attributes of their own, which are those of ADT messages.
CREATE INDEX patient_number ON patient (json_extract(attributes, '$.PatientID')) WHERE attributes <> '{{}}';
CREATE INDEX patient_name ON patient (
    CASE WHEN json_extract(attributes, '$.PatientName') GLOB '*[^ -<>-~]*' THEN ''
    ELSE lower(json_extract(attributes, '$.PatientName')) END
) WHERE attributes <> '{{}}';
