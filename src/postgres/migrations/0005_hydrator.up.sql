-- What the hydrator needs (design.md §8). Times are µs since 1970 UTC by this server's clock, which all replicas share.

ALTER TABLE hydrations
    -- Tries in a row that the vendor or the way to it spoiled; `attempts` counts "not there yet".
    ADD COLUMN failures     integer NOT NULL DEFAULT 0,
    -- Until when a worker has it. A worker that dies leaves it to be claimed again then.
    ADD COLUMN leased_until bigint  NOT NULL DEFAULT 0,
    -- Why it waits, or why it was given up: a literal of ours.
    ADD COLUMN reason       text,
    -- When the hydrator changed it last.
    ADD COLUMN updated_at   bigint  NOT NULL DEFAULT 0;
-- Two more states: done (its body stands in raw-documents), given_up.

-- A claim takes a vendor's rows, live before backfill, the longest due first.
CREATE INDEX hydrations_to_do ON hydrations (vendor, priority, not_before) WHERE state = 'waiting';

-- A claim asks whose a connection is now.
CREATE INDEX connections_by_id ON connections (id);

-- The vendors' limits, one row a limit, shared by all replicas (hydrator/quota.rs).
CREATE TABLE quotas (
    vendor     text      NOT NULL,
    -- The connection whose limit it is; the nil UUID for the limits of the whole app.
    subject    uuid      NOT NULL,
    window_s   integer   NOT NULL,
    -- How many calls were made in which slots of time, the oldest first; what does not count any more is dropped.
    slots      bigint[]  NOT NULL DEFAULT '{}',
    counts     integer[] NOT NULL DEFAULT '{}',
    -- In the row of window 0, which has no calls: nobody asks before, because the vendor said so.
    held_until bigint    NOT NULL DEFAULT 0,
    PRIMARY KEY (vendor, subject, window_s)
) WITH (fillfactor = 50);

-- OAuth tokens, sealed (postgres/vault.rs): nothing in here can be used without a key that no database has.
CREATE TABLE tokens (
    connection  uuid   NOT NULL PRIMARY KEY,
    vendor      text   NOT NULL,
    -- Which key sealed it.
    key_id      text   NOT NULL,
    -- Nonce, then AES-256-GCM of both tokens, bound to the connection.
    sealed      bytea  NOT NULL,
    -- Counts the pairs that were stored.
    version     bigint NOT NULL,
    -- When the access token was stored, and when it ends; null where the vendor does not say.
    stored_at   bigint NOT NULL,
    expires_at  bigint,
    -- live, limited (the vendor refused some record: consent does not cover all), reauth_required (nobody calls)
    state       text   NOT NULL,
    -- Until when a worker is exchanging the refresh token: nobody else does meanwhile.
    renewing_until bigint NOT NULL DEFAULT 0
);
