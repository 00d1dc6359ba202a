CREATE TABLE upstream (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL,
	name       TEXT NOT NULL UNIQUE,
	url        TEXT NOT NULL,
	command    TEXT NOT NULL,
	env        BYTEA,
	created_at BIGINT NOT NULL,
	CHECK ((url = '') <> (command = ''))
);

CREATE TABLE upstream_tool (
	upstream   TEXT NOT NULL REFERENCES upstream (id),
	position   BIGINT NOT NULL,
	workspace  TEXT NOT NULL,
	definition TEXT NOT NULL,
	PRIMARY KEY (upstream, position)
);
