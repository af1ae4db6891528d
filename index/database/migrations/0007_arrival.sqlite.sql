-- An instance of a series that is known, counted in by one statement: index/rows.py. What the row refers to may
-- have been removed by another process; then its foreign keys fail, and nothing is done.
CREATE VIEW arrival AS
    SELECT instance.*, 0 AS study_id, 0 AS number FROM instance;

CREATE TRIGGER arrival_counted INSTEAD OF INSERT ON arrival BEGIN
    INSERT INTO instance (
        uid, series_id, study_variant_id, series_variant_id, sop_class_uid, transfer_syntax,
        attributes, doubts, path, size, sha1, source_id, received
    ) VALUES (
        NEW.uid, NEW.series_id, NEW.study_variant_id, NEW.series_variant_id, NEW.sop_class_uid,
        NEW.transfer_syntax, NEW.attributes, NEW.doubts, NEW.path, NEW.size, NEW.sha1, NEW.source_id,
        NEW.received
    );
    UPDATE study_variant SET instance_count = instance_count + 1 WHERE id = NEW.study_variant_id;
    UPDATE series_variant SET instance_count = instance_count + 1 WHERE id = NEW.series_variant_id;
    UPDATE series SET instance_count = instance_count + 1 WHERE id = NEW.series_id;
    UPDATE study SET instance_count = instance_count + 1, last_received = NEW.received,
        revision = revision + 1, withdrawn = 0 WHERE id = NEW.study_id;
    UPDATE spool_position SET number = NEW.number WHERE NEW.number IS NOT NULL;
END;
