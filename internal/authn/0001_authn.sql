CREATE TABLE setup_code (
	one        BIGINT PRIMARY KEY,
	hash       BYTEA NOT NULL,
	tries      BIGINT NOT NULL DEFAULT 0, -- wrong ones
	expires_at BIGINT NOT NULL,
	used_at    BIGINT
);

CREATE TABLE sign_in_link (
	workspace  TEXT NOT NULL,
	user_id    TEXT NOT NULL,
	slot       BIGINT NOT NULL, -- bounds how many a person has
	id         TEXT NOT NULL UNIQUE,
	hash       BYTEA NOT NULL,
	flow       TEXT NOT NULL, -- the authorization that waits for this sign-in, or empty
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	used_at    BIGINT,
	PRIMARY KEY (workspace, user_id, slot)
);

CREATE TABLE browser_session (
	id         TEXT PRIMARY KEY,
	hash       BYTEA NOT NULL,
	workspace  TEXT NOT NULL,
	user_id    TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	ended_at   BIGINT
);
