-- A batch's outputs say the same things five hundred times: LZ4 makes a third of them, for less than the chunks that it
-- saves cost (8.5 against 5.7 µs of the server an event, and a third of the log). `pglz` would cost more than all else.
ALTER TABLE outbox ALTER COLUMN records SET STORAGE EXTENDED;
ALTER TABLE outbox ALTER COLUMN records SET COMPRESSION lz4;
