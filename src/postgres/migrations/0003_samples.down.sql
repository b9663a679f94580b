ALTER TABLE buckets DROP COLUMN versions, DROP COLUMN stages, DROP COLUMN told;
