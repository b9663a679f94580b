DROP INDEX gaps_to_open;
ALTER TABLE gaps DROP COLUMN opened_at;
