-- While a study grows it is not published before, whichever node does it: milliseconds since 1970 by the clock of
-- the database.
ALTER TABLE study ADD COLUMN paused_until {bigint} NOT NULL DEFAULT 0;
