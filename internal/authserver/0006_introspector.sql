-- Programs that may ask about the tokens of one endpoint. They are no clients: they
-- get no tokens, and nobody registers them but an administrator.
CREATE TABLE introspector (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL,
	name       TEXT NOT NULL,
	resource   TEXT NOT NULL,
	hash       BYTEA NOT NULL,
	created_at BIGINT NOT NULL,
	created_by TEXT NOT NULL
);
