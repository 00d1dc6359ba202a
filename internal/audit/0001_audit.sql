CREATE TABLE audit_event (
	workspace    TEXT   NOT NULL,
	seq          BIGINT NOT NULL,
	id           TEXT   NOT NULL,
	time_us      BIGINT NOT NULL,
	call         TEXT   NOT NULL,
	actor        TEXT   NOT NULL,
	client       TEXT   NOT NULL,
	token        TEXT   NOT NULL,
	door         TEXT   NOT NULL,
	ref          TEXT   NOT NULL,
	action       TEXT   NOT NULL,
	target       TEXT   NOT NULL,
	outcome      TEXT   NOT NULL,
	code         TEXT   NOT NULL,
	duration_us  BIGINT NOT NULL,
	payload_hash TEXT   NOT NULL,
	detail       TEXT   NOT NULL,
	prev_hash    TEXT   NOT NULL,
	hash         TEXT   NOT NULL,
	PRIMARY KEY (workspace, seq)
);

CREATE INDEX audit_event_denied ON audit_event (workspace, seq) WHERE outcome = 'denied';

CREATE INDEX audit_event_pending ON audit_event (time_us) WHERE outcome = 'pending';

CREATE TABLE audit_head (
	workspace TEXT   PRIMARY KEY,
	seq       BIGINT NOT NULL,
	hash      TEXT   NOT NULL
);

CREATE TABLE audit_key (
	name       TEXT   PRIMARY KEY,
	seed       BYTEA  NOT NULL,
	created_at BIGINT NOT NULL
);
