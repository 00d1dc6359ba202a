-- Whose it is: the authorization server, and the client that we were there. What one
-- granted is never shown to another that took its name.
ALTER TABLE upstream_grant ADD COLUMN provider TEXT NOT NULL DEFAULT '';

-- What is over here, and its provider is still to be told so (RFC 7009).
CREATE TABLE upstream_revocation (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL,
	connection TEXT NOT NULL REFERENCES connection (id),
	user_id    TEXT NOT NULL,
	provider   TEXT NOT NULL,
	access     BYTEA,                     -- sealed
	refresh    BYTEA,                     -- sealed
	tries      BIGINT NOT NULL DEFAULT 0, -- that were begun
	due_at     BIGINT NOT NULL,           -- when it is tried next
	created_at BIGINT NOT NULL
);
CREATE INDEX upstream_revocation_due ON upstream_revocation (connection, due_at);
