-- What a bucket keeps beside its seen-set; null where there is nothing to keep (model/sample.rs).

ALTER TABLE buckets
    -- Of samples whose ids are derived: the receipts' places, and per sample its receipt and its hash.
    ADD COLUMN versions bytea,
    -- Of samples of sleep: stage, start, end, offset.
    ADD COLUMN stages   bytea,
    -- Of a sleep session, whose state stands here though it is no bucket: the op and the hash that were told last.
    ADD COLUMN told     bytea;
-- Read and written whole, with every push: compressing would cost more than it saves.
ALTER TABLE buckets
    ALTER COLUMN versions SET STORAGE EXTERNAL,
    ALTER COLUMN stages SET STORAGE EXTERNAL;
