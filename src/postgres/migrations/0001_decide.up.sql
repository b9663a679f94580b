-- What decide knows and what it has decided (design.md §3.1, §5).
-- A topic is its code (model/contract.rs), an op is 1 for UPSERT and 2 for DELETE, a time is µs since 1970 UTC.

CREATE TABLE stream_progress (
    topic     smallint NOT NULL,
    partition integer  NOT NULL,
    -- Whose the partition is; drawn by each recovery.
    fence     uuid     NOT NULL,
    -- The first offset that is not in here.
    applied   bigint   NOT NULL,
    -- What the task that wrote `applied` knew to be in the output topics.
    published bigint   NOT NULL,
    -- Recoveries since the last progress.
    starts    integer  NOT NULL,
    -- Tries of the record at `applied`, while records are tried one at a time.
    tries     integer  NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- The last batch of each partition as it was to be sent; read after a crash only.
CREATE TABLE outbox (
    topic       smallint NOT NULL,
    partition   integer  NOT NULL,
    from_offset bigint   NOT NULL,
    to_offset   bigint   NOT NULL,
    -- model/outbox.rs
    records     bytea    NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (
    fillfactor = 50,
    toast.autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 20000
);
-- Compressing what lives for one batch would cost more than all else.
ALTER TABLE outbox ALTER COLUMN records SET STORAGE EXTERNAL;

-- Every revision ever told. Appended to; `place` of the latest is the one thing that may change.
CREATE TABLE revisions (
    event_id     uuid     NOT NULL,
    measured_at  bigint,
    revision     integer  NOT NULL,
    op           smallint NOT NULL,
    -- model/id.rs, `Place`
    place        bytea    NOT NULL,
    content_hash bytea    NOT NULL,
    user_id      text     NOT NULL,
    device_type  text     NOT NULL,
    -- The value that was sent, framing included.
    event        bytea    NOT NULL,
    PRIMARY KEY (event_id, revision)
);
ALTER TABLE revisions ALTER COLUMN event SET STORAGE EXTERNAL;
-- For what a tombstone uncovers in the cache, and for all that is asked about a person.
CREATE INDEX revisions_of_user ON revisions (user_id, measured_at DESC);

-- How the records of normalised-records ended that were not published.
CREATE TABLE decisions (
    partition        integer  NOT NULL,
    "offset"         bigint   NOT NULL,
    -- The raw record; null where the value could not be read.
    source_topic     smallint,
    source_partition integer,
    source_offset    bigint,
    source_index     integer,
    verdict          text     NOT NULL,
    -- Of which it is a duplicate, or by which it is superseded.
    event_id         uuid,
    revision         integer,
    reason           text,
    PRIMARY KEY (partition, "offset")
);

-- One connection's samples of one type and source on one UTC day.
CREATE TABLE buckets (
    event_id    uuid    NOT NULL PRIMARY KEY,
    connection  uuid    NOT NULL,
    day         integer NOT NULL,
    sample_type text    NOT NULL,
    user_id     text    NOT NULL,
    record_id   text    NOT NULL,
    vendor      text    NOT NULL,
    device_type text    NOT NULL,
    -- The number of its latest revision.
    revision    integer NOT NULL,
    -- Sorted, 17 bytes a sample: its id, then 0, or 1 where it is gone for good.
    samples     bytea   NOT NULL
) WITH (fillfactor = 70);
-- Ids are random: nothing to compress, and `position` reads the bytes as they are.
ALTER TABLE buckets ALTER COLUMN samples SET STORAGE EXTERNAL;
-- A deletion looks for its sample from the newest day back.
CREATE INDEX buckets_of_type ON buckets (connection, sample_type, day DESC);

-- Deletions whose sample has not come. Sorted, 16 bytes an id.
CREATE TABLE waiting_removals (
    connection  uuid  NOT NULL,
    sample_type text  NOT NULL,
    samples     bytea NOT NULL,
    PRIMARY KEY (connection, sample_type)
);
ALTER TABLE waiting_removals ALTER COLUMN samples SET STORAGE EXTERNAL;
