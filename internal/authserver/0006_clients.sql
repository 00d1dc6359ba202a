-- What who runs the server decided about a client.
ALTER TABLE client ADD COLUMN approved_at BIGINT;
ALTER TABLE client ADD COLUMN blocked_at BIGINT;
ALTER TABLE client ADD COLUMN blocked_reason TEXT NOT NULL DEFAULT '';
CREATE INDEX client_created ON client (created_at, id);
CREATE INDEX client_approved ON client (id) WHERE approved_at IS NOT NULL;

-- Initial access tokens (RFC 7591 §3): who has one may register clients.
CREATE TABLE registration_token (
	id         TEXT PRIMARY KEY,
	hash       BYTEA NOT NULL,
	note       TEXT NOT NULL,
	created_by TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	revoked_at BIGINT,
	uses       BIGINT NOT NULL DEFAULT 0,
	used_at    BIGINT
);
CREATE INDEX registration_token_expires ON registration_token (expires_at);
