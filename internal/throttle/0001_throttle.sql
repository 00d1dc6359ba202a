-- What came near a limit, of all nodes together, for the window that began then.
CREATE TABLE throttle (
	name    TEXT NOT NULL, -- the group, and a hash of who was counted; only the group: all
	began   BIGINT NOT NULL,
	ends_at BIGINT NOT NULL,
	n       BIGINT NOT NULL,
	PRIMARY KEY (name, began)
);
CREATE INDEX throttle_ends ON throttle (ends_at);
