-- Which connections of a vendor a person has: a gap of one waits where another holds (history.rs).
CREATE INDEX connections_by_user ON connections (vendor, user_id);
