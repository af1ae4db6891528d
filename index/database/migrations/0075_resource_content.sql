-- When a resource last changed, and how many bytes its content has; 0: it has none, or none is kept yet (of
-- an earlier version): the publisher then makes it, index/publication/filling.py.
ALTER TABLE resource ADD COLUMN changed {bigint} NOT NULL DEFAULT 0;
ALTER TABLE resource ADD COLUMN size {bigint} NOT NULL DEFAULT 0;
CREATE INDEX change_resource_id ON change (resource_id);
UPDATE resource SET changed = COALESCE((SELECT max(changed) FROM change WHERE resource_id = resource.id), 0);
CREATE INDEX resource_without_content ON resource (id) WHERE size = 0 AND deleted = 0;

-- The content of each resource (`id`), by gzip. A table of its own: queries over resources do not read it.
CREATE TABLE resource_content (
    id {bigint} PRIMARY KEY REFERENCES resource (id) ON DELETE CASCADE,
    content {blob} NOT NULL
);
