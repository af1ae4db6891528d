-- Instances are counted by the batch: index/database/instance_rows.py.
DROP TRIGGER arrival_counted;
DROP VIEW arrival;
