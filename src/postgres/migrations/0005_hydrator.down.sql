DROP TABLE tokens, quotas;
DROP INDEX hydrations_to_do, connections_by_id;
ALTER TABLE hydrations
    DROP COLUMN failures, DROP COLUMN leased_until, DROP COLUMN reason, DROP COLUMN updated_at;
