CREATE TABLE workspace (
	id         TEXT PRIMARY KEY,
	name       TEXT NOT NULL,
	created_at BIGINT NOT NULL
);

CREATE TABLE users (
	id         TEXT PRIMARY KEY,
	email      TEXT NOT NULL UNIQUE, -- lower case
	created_at BIGINT NOT NULL
);

CREATE TABLE member (
	workspace  TEXT NOT NULL REFERENCES workspace (id),
	user_id    TEXT NOT NULL REFERENCES users (id),
	role       TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'standard', 'readonly')),
	status     TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'revoked')),
	created_at BIGINT NOT NULL,
	PRIMARY KEY (workspace, user_id)
);
