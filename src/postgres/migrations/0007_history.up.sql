-- When the windows of a gap were written into `hydrations`; null until then. A window is a row there like any record: its
-- type begins with `window.`, its id is `from/to` in days, its priority is 1 or more: what is lower comes first.
ALTER TABLE gaps ADD COLUMN opened_at bigint;
CREATE INDEX gaps_to_open ON gaps (vendor, to_at) WHERE opened_at IS NULL;
