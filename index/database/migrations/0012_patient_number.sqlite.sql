-- The patients of one PatientID whoever issued it: what a merge or an update without an authority means.
CREATE INDEX study_variant_patient_number ON study_variant (json_extract(patient_attributes, '$.PatientID'));
