DROP TABLE waiting_removals, buckets, decisions, revisions, outbox, stream_progress;
