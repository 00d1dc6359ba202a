CREATE TABLE signing_key (
	generation BIGINT PRIMARY KEY,
	kid        TEXT NOT NULL UNIQUE,
	alg        TEXT NOT NULL,
	public     TEXT NOT NULL,  -- JWK
	private    BYTEA NOT NULL, -- sealed, PKCS #8
	created_at BIGINT NOT NULL
);

CREATE TABLE token_family (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL,
	user_id    TEXT NOT NULL,
	client     TEXT NOT NULL,
	consent    TEXT NOT NULL,
	scopes     TEXT NOT NULL,
	resource   TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	used_at    BIGINT NOT NULL,
	revoked_at BIGINT,
	reason     TEXT NOT NULL DEFAULT ''
);

CREATE TABLE refresh_token (
	id            TEXT PRIMARY KEY,
	workspace     TEXT NOT NULL,
	family        TEXT NOT NULL REFERENCES token_family (id),
	parent        TEXT NOT NULL, -- empty for the first of a family
	hash          BYTEA NOT NULL,
	created_at    BIGINT NOT NULL,
	expires_at    BIGINT NOT NULL,
	used_at       BIGINT,
	child_used_at BIGINT -- first use of any of its children
);

CREATE TABLE revocation (
	seq        BIGINT PRIMARY KEY,
	id         TEXT NOT NULL, -- of a token, a family, a client or a user
	expires_at BIGINT NOT NULL
);

CREATE TABLE revocation_head (
	one BIGINT PRIMARY KEY,
	seq BIGINT NOT NULL
);
INSERT INTO revocation_head (one, seq) VALUES (1, 0);
