-- What normalise writes that is not a record (design.md §3, §8). All of it can be written twice.

-- Whose a vendor's user is, and from when to when. Only ever appended to; an end is filled in.
CREATE TABLE connections (
    vendor      text   NOT NULL,
    vendor_user text   NOT NULL,
    -- Inclusive; the least bigint for a vendor user's first row.
    valid_from  bigint NOT NULL,
    -- Exclusive; null while it holds.
    valid_to    bigint,
    id          uuid   NOT NULL,
    user_id     text   NOT NULL,
    PRIMARY KEY (vendor, vendor_user, valid_from)
);

-- Records to be fetched: one row a record, however many notifications ask for it.
CREATE TABLE hydrations (
    vendor           text     NOT NULL,
    connection       uuid     NOT NULL,
    record_type      text     NOT NULL,
    record_id        text     NOT NULL,
    -- Who asked (or ended it) last, and when that was received: what is not newer changes nothing.
    source_topic     smallint NOT NULL,
    source_partition integer  NOT NULL,
    source_offset    bigint   NOT NULL,
    source_index     integer  NOT NULL,
    asked_at         bigint   NOT NULL,
    not_before       bigint   NOT NULL DEFAULT 0,
    attempts         integer  NOT NULL DEFAULT 0,
    -- 0 is live; what is higher comes later.
    priority         smallint NOT NULL DEFAULT 0,
    origin           text     NOT NULL DEFAULT 'live',
    -- waiting, ended (its record was deleted)
    state            text     NOT NULL,
    PRIMARY KEY (vendor, connection, record_type, record_id)
);

-- Items of vendor users that nobody knows yet.
CREATE TABLE held (
    topic       smallint NOT NULL,
    partition   integer  NOT NULL,
    "offset"    bigint   NOT NULL,
    index       integer  NOT NULL,
    vendor      text     NOT NULL,
    vendor_user text     NOT NULL,
    received_at bigint   NOT NULL,
    PRIMARY KEY (topic, partition, "offset", index)
);

-- Items that ended in normalise.
CREATE TABLE verdicts (
    topic     smallint NOT NULL,
    partition integer  NOT NULL,
    "offset"  bigint   NOT NULL,
    index     integer  NOT NULL,
    verdict   text     NOT NULL,
    reason    text     NOT NULL,
    PRIMARY KEY (topic, partition, "offset", index)
);
