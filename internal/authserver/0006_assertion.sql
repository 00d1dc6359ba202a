-- What was signed for one use and has been used.
CREATE TABLE used_assertion (
	id         TEXT PRIMARY KEY, -- hash of who signed it and what that one calls it
	expires_at BIGINT NOT NULL   -- then it is refused for its age
);
CREATE INDEX used_assertion_expires ON used_assertion (expires_at);
