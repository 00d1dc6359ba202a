-- Whom another authorization server knows, and who that is here.
CREATE TABLE external_subject (
	issuer     TEXT NOT NULL,
	subject    TEXT NOT NULL,
	workspace  TEXT NOT NULL,
	user_id    TEXT NOT NULL REFERENCES users (id),
	created_at BIGINT NOT NULL,
	PRIMARY KEY (issuer, subject)
);
