-- Access tokens that are no JWT: what they would say stands here.
CREATE TABLE access_token (
	id         TEXT PRIMARY KEY,
	hash       BYTEA NOT NULL,
	workspace  TEXT NOT NULL,
	family     TEXT NOT NULL, -- which has a row only if it has refresh tokens
	user_id    TEXT NOT NULL,
	client     TEXT NOT NULL,
	scopes     TEXT NOT NULL,
	resource   TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL
);
CREATE INDEX access_token_expires ON access_token (expires_at);
