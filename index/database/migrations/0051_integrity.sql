-- When the last `verify` that read every object began, and the objects that were not whole when they were last
-- read: index/integrity.py.
CREATE TABLE verification (
    id {id},
    began {bigint} NOT NULL
);
CREATE TABLE damaged_object (
    id {id},
    path TEXT NOT NULL UNIQUE
);

-- When the objects that a commitment asks for were last read; 0: never.
ALTER TABLE commitment ADD COLUMN checked {bigint} NOT NULL DEFAULT 0;
