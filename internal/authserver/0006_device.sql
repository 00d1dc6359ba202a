-- Devices that wait for a person elsewhere (RFC 8628).
CREATE TABLE device_code (
	id         TEXT PRIMARY KEY,
	hash       BYTEA NOT NULL,
	user_hash  BYTEA NOT NULL UNIQUE, -- of the code that the person types
	user_code  BYTEA NOT NULL,        -- the same, sealed: the person compares it
	client     TEXT NOT NULL,
	scopes     TEXT NOT NULL,
	resource   TEXT NOT NULL,
	asked_from TEXT NOT NULL,
	asked_by   TEXT NOT NULL,         -- program, as it calls itself
	ref        TEXT NOT NULL,
	polled_at  BIGINT,
	pause      BIGINT NOT NULL,       -- between two polls, µs
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	decided_at BIGINT,
	workspace  TEXT NOT NULL DEFAULT '', -- of who decided
	user_id    TEXT NOT NULL DEFAULT '',
	consent    TEXT NOT NULL DEFAULT '', -- empty: it was not allowed
	granted    TEXT NOT NULL DEFAULT '',
	family     TEXT NOT NULL DEFAULT '', -- of the tokens it becomes
	used_at    BIGINT
);
CREATE INDEX device_code_expires ON device_code (expires_at);
CREATE INDEX device_code_consent ON device_code (consent) WHERE consent <> '';
CREATE INDEX device_code_client ON device_code (client);

ALTER TABLE flow ADD COLUMN device TEXT NOT NULL DEFAULT ''; -- that is answered in place of a redirect URI
