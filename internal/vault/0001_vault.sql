-- A connection is a way to somebody else's service; a credential goes nowhere but
-- to its hosts.
CREATE TABLE connection (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL,
	name       TEXT NOT NULL,
	hosts      TEXT NOT NULL, -- one a line
	created_at BIGINT NOT NULL,
	UNIQUE (workspace, name),
	CHECK (hosts <> '')
);

-- What a provider granted one person; there is one row for each, which is used
-- again when the person connects again.
CREATE TABLE upstream_grant (
	id            TEXT PRIMARY KEY,
	workspace     TEXT NOT NULL,
	connection    TEXT NOT NULL REFERENCES connection (id),
	user_id       TEXT NOT NULL,
	status        TEXT NOT NULL,             -- active, error, removed
	reason        TEXT NOT NULL DEFAULT '',  -- why it is not active
	scopes        TEXT NOT NULL DEFAULT '',  -- that the provider granted
	access        BYTEA,                     -- sealed
	refresh       BYTEA,                     -- sealed; none if the provider gave none
	version       BIGINT NOT NULL DEFAULT 0, -- counts the credentials
	created_at    BIGINT NOT NULL,
	connected_at  BIGINT NOT NULL DEFAULT 0,
	used_at       BIGINT NOT NULL DEFAULT 0,
	expires_at    BIGINT,                    -- of the access token; none if the provider did not say
	refresh_until BIGINT NOT NULL DEFAULT 0, -- until then one node has the refreshing of it
	UNIQUE (workspace, connection, user_id)
);
CREATE INDEX upstream_grant_due ON upstream_grant (expires_at) WHERE status = 'active' AND refresh IS NOT NULL;

-- A browser that was sent to a provider and has not come back.
CREATE TABLE departure (
	id          TEXT PRIMARY KEY,
	hash        BYTEA NOT NULL, -- of the secret in state
	browser_id  TEXT NOT NULL,
	browser     BYTEA NOT NULL, -- hash of the key in its cookie
	workspace   TEXT NOT NULL,
	connection  TEXT NOT NULL REFERENCES connection (id),
	user_id     TEXT NOT NULL,
	flow        TEXT NOT NULL,  -- the authorization that waits; empty: none
	verifier    BYTEA NOT NULL, -- sealed
	created_at  BIGINT NOT NULL,
	expires_at  BIGINT NOT NULL,
	used_at     BIGINT
);
CREATE INDEX departure_expires ON departure (expires_at);
