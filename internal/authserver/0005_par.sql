-- Authorization requests that their clients pushed (RFC 9126).
CREATE TABLE pushed_request (
	id         TEXT PRIMARY KEY,
	hash       BYTEA NOT NULL,
	client     TEXT NOT NULL,
	query      TEXT NOT NULL, -- the parameters, without what the client proved itself with
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	used_at    BIGINT
);
CREATE INDEX pushed_request_expires ON pushed_request (expires_at);
