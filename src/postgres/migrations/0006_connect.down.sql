DROP TABLE paused, turns, gaps, consents;
