CREATE TABLE client (
	id            TEXT PRIMARY KEY,
	name          TEXT NOT NULL,
	redirect_uris TEXT NOT NULL, -- one a line
	grant_types   TEXT NOT NULL, -- space separated
	auth_method   TEXT NOT NULL,
	secret_hash   BYTEA,
	scope         TEXT NOT NULL,
	metadata      TEXT NOT NULL, -- the registration as answered, JSON without secrets
	created_at    BIGINT NOT NULL,
	created_from  TEXT NOT NULL
);

CREATE TABLE flow (
	id           TEXT PRIMARY KEY,
	ref          TEXT NOT NULL,
	browser      BYTEA NOT NULL, -- hash of the key in its cookie
	client       TEXT NOT NULL REFERENCES client (id),
	redirect_uri TEXT NOT NULL,
	state        TEXT NOT NULL,
	challenge    TEXT NOT NULL,
	scopes       TEXT NOT NULL,
	resource     TEXT NOT NULL,
	asked_from   TEXT NOT NULL,
	created_at   BIGINT NOT NULL,
	expires_at   BIGINT NOT NULL,
	decided_at   BIGINT,
	allowed      BOOLEAN,
	answer       BYTEA, -- sealed: where the browser goes back to
	shown_at     BIGINT
);

CREATE TABLE consent (
	id           TEXT PRIMARY KEY,
	workspace    TEXT NOT NULL,
	user_id      TEXT NOT NULL,
	client       TEXT NOT NULL REFERENCES client (id),
	redirect_uri TEXT NOT NULL,
	scopes       TEXT NOT NULL,
	resource     TEXT NOT NULL,
	granted_at   BIGINT NOT NULL
);

CREATE TABLE authorization_code (
	id           TEXT PRIMARY KEY,
	hash         BYTEA NOT NULL,
	workspace    TEXT NOT NULL,
	user_id      TEXT NOT NULL,
	client       TEXT NOT NULL,
	consent      TEXT NOT NULL REFERENCES consent (id),
	redirect_uri TEXT NOT NULL,
	challenge    TEXT NOT NULL,
	scopes       TEXT NOT NULL,
	resource     TEXT NOT NULL,
	family       TEXT NOT NULL, -- of the tokens it becomes
	ref          TEXT NOT NULL,
	tries        BIGINT NOT NULL DEFAULT 0, -- wrong verifiers
	created_at   BIGINT NOT NULL,
	expires_at   BIGINT NOT NULL,
	used_at      BIGINT
);
