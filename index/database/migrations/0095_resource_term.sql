-- By what each resource is found (FHIR search): index/publication/terms/. `terms`: with which tables of search
-- parameters its rows were made; 0: they are still to be made (index/publication/terms/filling.py).
ALTER TABLE resource ADD COLUMN terms {bigint} NOT NULL DEFAULT 0;
CREATE INDEX resource_terms ON resource (terms, id) WHERE deleted = 0;
CREATE INDEX resource_listing ON resource (fhir, type, deleted, id);
CREATE INDEX resource_changed ON resource (fhir, type, deleted, changed, id);

-- `parameter`: the number of the search parameter. `value` is folded; `exact`: a text as it stands. `low` and
-- `high` (excluded): what a date covers, in ms since 1970.
CREATE TABLE resource_term (
    id {id},
    resource_id {bigint} NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
    parameter {bigint} NOT NULL,
    system TEXT {collation} NOT NULL,
    value TEXT {collation} NOT NULL,
    exact TEXT {collation} NOT NULL,
    low {bigint},
    high {bigint}
);
CREATE INDEX resource_term_resource_id ON resource_term (resource_id);
CREATE INDEX resource_term_value ON resource_term (parameter, value, resource_id, system);
CREATE INDEX resource_term_low ON resource_term (parameter, low, resource_id, high) WHERE low IS NOT NULL;
