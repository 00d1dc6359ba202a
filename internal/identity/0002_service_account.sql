CREATE TABLE service_account (
	id          TEXT PRIMARY KEY,
	workspace   TEXT NOT NULL REFERENCES workspace (id),
	name        TEXT NOT NULL,
	tools       TEXT NOT NULL, -- full names of what it may call, one a line
	secret_hash BYTEA,         -- none: it signs with one of its keys
	jwks        TEXT NOT NULL, -- public keys (RFC 7517); empty if it has a secret
	family      TEXT NOT NULL, -- of its tokens; another as soon as those were ended
	status      TEXT NOT NULL CHECK (status IN ('active', 'disabled')),
	created_at  BIGINT NOT NULL,
	created_by  TEXT NOT NULL,
	used_at     BIGINT,        -- when it last got a token, to the minute
	UNIQUE (workspace, name)
);
