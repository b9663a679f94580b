-- What connecting by consent needs (hydrator/connect). Times are µs since 1970 UTC by this server's clock.

-- Consents that people are asked for now. A row goes with its one use, or at its end.
CREATE TABLE consents (
    -- SHA-256 of the `state`, hex: who reads this table cannot answer for a person.
    state      text   NOT NULL PRIMARY KEY,
    -- SHA-256 of what the person's browser was given, hex.
    browser    text   NOT NULL,
    vendor     text   NOT NULL,
    user_id    text   NOT NULL,
    -- The PKCE verifier, sealed as tokens are and bound to the state.
    key_id     text   NOT NULL,
    sealed     bytea  NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX consents_by_user ON consents (vendor, user_id, expires_at);
CREATE INDEX consents_by_end ON consents (expires_at);

-- What a consent opens: history to be asked for. From the end of what we have had, or from ever where that is null.
CREATE TABLE gaps (
    connection uuid   NOT NULL,
    vendor     text   NOT NULL,
    from_at    bigint,
    to_at      bigint NOT NULL,
    PRIMARY KEY (connection, to_at)
);

-- What one process does for all of them, and until when nobody else does it.
CREATE TABLE turns (
    name  text   NOT NULL PRIMARY KEY,
    until bigint NOT NULL
);

-- Connections that nothing is fetched for until they are resumed; what is pushed to us is still taken in.
CREATE TABLE paused (
    connection uuid   NOT NULL PRIMARY KEY,
    since      bigint NOT NULL
);
