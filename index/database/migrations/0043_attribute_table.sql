-- With which attribute table instances were read, from a row id on: index/database/attribute_tables.py.
CREATE TABLE attribute_table (
    id {id},
    digest TEXT NOT NULL,
    first_instance {bigint} NOT NULL
);
